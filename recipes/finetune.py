"""EfficientNet-Lite0, which knows ImageNet, learns your own photos: head first, then all of it far slower.

    edge-cv run recipes/finetune.py --data DIR --out runs/mine

DIR holds a folder of photos for each class, or whatever else `edge-cv data check` can open. A fifth of the photos is
measured on, a tenth of the rest chooses the best epoch, all others are learned from. Fifty photos a class are a good
beginning. Another model: --set model.name=mobilenet_v2; another length: --set fit.epochs=30.
"""

from edge_cv.recipe import Data, Limits, Model, Recipe, fine_tuning

RECIPE = Recipe(
    name="finetune",
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="photos", calibrate=None),
    fit=fine_tuning(),
    schemes=("float32", "int8"),
    limits=(Limits("int8", min_agreement=0.95, max_size_ratio=0.4),),
)
