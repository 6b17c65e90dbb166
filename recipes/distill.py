"""Train a network without labels: MobileNetV3 Large learns the answers of EfficientNet-Lite2 on a folder of photos.

Distilling the Knowledge in a Neural Network, Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531
Knowledge distillation: A good teacher is patient and consistent, Beyer et al. 2021, https://arxiv.org/abs/2106.05237:
teacher and student see the same crop, with Mixup (section 3.1), for much longer than a training on labels (3.2). The
teacher's probabilities, computed for each crop, replace labels.

    edge-cv run distill --set fit.data=PHOTOS --out runs/distill

PHOTOS is a folder of photos, without folders in it; the more, and the more varied, the better. The student learns
ImageNet's 1000 classes without ImageNet, which suits an architecture that has no pretrained weights. Another student:
--set model.name=efficientnet_b0. A faster teacher: --set fit.teacher.model.name=efficientnet_lite0. A longer training:
--set fit.epochs=3000; few photos need more epochs, not fewer. The same command resumes after an interruption.

The share of held-out photos on which student and teacher agree chooses the epoch. The report measures on
ImageNet's photos. Expected top-1: not measured; it depends on the photos.
"""

from edge_cv.recipe import Augment, Data, Fit, Model, Recipe, Teacher

RECIPE = Recipe(
    name="distill",
    model=Model("mobilenet_v3_large", classes=1000),
    data=Data(measure="sample"),
    fit=Fit(
        data="photos",
        epochs=300,
        batch_size=128,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-4,
        warmup_epochs=5,
        clip_norm=1.0,
        precision="auto",
        augment=Augment(crop_scale=(0.08, 1.0), mixup=1.0),
        teacher=Teacher(Model("efficientnet_lite2", weights="imagenet"), share=1.0, temperature=1.0),
    ),
    schemes=("float32", "int8"),
    notes=("trained without labels, on the answers of EfficientNet-Lite2.",),
)
