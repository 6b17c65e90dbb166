"""WordNet's distances between ImageNet's classes, against networkx on the same table."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from edge_cv.data import imagenet_labels
from edge_cv.data.wordnet import hierarchy
from edge_cv.data.wordnet.hierarchy import imagenet_hierarchy
from edge_cv.evaluation.mistakes import mistakes
from edge_cv.evaluation.per_class import distinct

RETRIEVER, LABRADOR, TABBY, FIRE_ENGINE = 207, 208, 281, 555


@pytest.fixture(scope="module")
def graph() -> networkx.DiGraph:
    """From a synset to its hypernyms."""
    graph = networkx.DiGraph()
    for line in hierarchy._TABLE.read_text(encoding="utf-8").splitlines():
        wnid, name, *parents = line.split("\t")
        graph.add_node(wnid, name=name)
        graph.add_edges_from((wnid, parent) for parent in parents)
    return graph


def test_every_class_is_in_the_table_and_all_lead_to_one_root(graph):
    wnids = [label.wnid for label in imagenet_labels()]
    assert set(wnids) <= set(graph)
    assert networkx.is_directed_acyclic_graph(graph)
    assert [n for n in graph if graph.out_degree(n) == 0] == ["n00001740"]
    assert graph.nodes["n00001740"]["name"] == "entity"
    assert {n for n in graph if graph.in_degree(n) == 0} == set(wnids)  # no class is above another
    for label in imagenet_labels():
        names = {name.lower() for name in (label.name, graph.nodes[label.wnid]["name"])}
        assert names  # the first names are equal, except for case
        assert len(names) == 1, label


def test_distances_equal_those_of_networkx(graph):
    tree, labels = imagenet_hierarchy(), imagenet_labels()
    wnids = {label.wnid for label in labels}
    down = graph.reverse()
    height = {}
    for node in reversed(list(networkx.topological_sort(down))):
        height[node] = max((1 + height[child] for child in down[node]), default=0)
    rng = np.random.default_rng(0)
    for i, j in [*rng.integers(0, 1000, (150, 2)).tolist(), (RETRIEVER, LABRADOR), (RETRIEVER, TABBY)]:
        a, b = labels[i].wnid, labels[j].wnid
        up_a, up_b = (networkx.single_source_shortest_path_length(graph, n) for n in (a, b))
        shared = set(up_a) & set(up_b)
        if i == j:
            assert tree.height[i, j] == tree.steps[i, j] == 0
            continue
        assert tree.height[i, j] == tree.height[j, i] == min(height[n] for n in shared)
        assert tree.steps[i, j] == min(up_a[n] + up_b[n] for n in shared)
        ancestors = {graph.nodes[n]["name"] for n in shared if height[n] == tree.height[i, j]}
        assert tree.names[tree.ancestor[i, j]] in ancestors
        assert not shared & wnids


def test_breeds_are_near_and_machines_far():
    tree = imagenet_hierarchy()
    assert tree.names[tree.ancestor[RETRIEVER, LABRADOR]] == "retriever"
    assert tree.height[RETRIEVER, LABRADOR] == 1
    assert tree.height[RETRIEVER, LABRADOR] < tree.height[RETRIEVER, TABBY] < tree.height[RETRIEVER, FIRE_ENGINE] == 15
    assert (tree.height.max(), tree.height.min()) == (18, 0)
    assert (np.diag(tree.height) == 0).all()
    assert (tree.height + np.eye(1000) > 0).all()


def test_mistakes_are_means_over_wrong_predictions():
    names = distinct([label.name for label in imagenet_labels()])
    labels = np.array([RETRIEVER, RETRIEVER, RETRIEVER, TABBY, -1])
    answers = np.array([RETRIEVER, LABRADOR, FIRE_ENGINE, TABBY, 3])
    found = mistakes(labels, answers, names)
    assert (found.wrong, found.height) == (2, (1 + 15) / 2)
    assert found.steps == (2 + 17) / 2
    others = [imagenet_hierarchy().height[RETRIEVER, i] for i in range(1000) if i != RETRIEVER]
    assert found.height_by_chance == pytest.approx(np.mean(others))
    assert [(c.label, c.answer, c.height, c.photos) for c in found.worst] == [
        ("golden retriever", "fire engine", 15, 1),
        ("golden retriever", "Labrador retriever", 1, 1),
    ]
    assert found.worst[1].ancestor == "retriever"
    assert mistakes(np.array([1]), np.array([1]), names).height is None
    assert mistakes(np.array([-1]), np.array([1]), names) is None
