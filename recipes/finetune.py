"""Fine-tune EfficientNet-Lite0, pretrained on ImageNet, on your own photos: first the head, then all layers slowly.

    edge-cv run finetune --data DIR --out runs/mine

DIR holds a folder of photos for each class, or another layout that `edge-cv data check` opens. One fifth of the photos
is measured, one tenth of the rest chooses the epoch, and all others are trained on. Start with about fifty photos
per class. First a linear probe is fitted on the pretrained features, and the report compares the result with it; with
`--probe` the probe itself is the model, in a minute.

Another model: --set model.name=mobilenet_v2. Longer: --set fit.epochs=30. Another first phase:
--set "fit.phases[0].epochs=5". Photos that must not be mirrored, such as letters: --set fit.augment.flip=0.
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
