"""MobileNet V2 on ImageNet, as its paper trained it.

MobileNetV2, Sandler et al. 2018, section 6.1: RMSprop with decay and momentum 0.9, weight decay 4e-5, batch 96 on each
of 16 GPUs, rate 0.045 times 0.98 an epoch. The crops are Inception's, as in the authors' code.

The paper's GPUs were not synchronous, so its rate belongs to a batch of 96; here one host takes 96 images a step. With
more GPUs raise fit.batch_size, and fit.learning_rate by the root of that factor.

    edge-cv run recipes/mobilenet_v2.py --data IMAGENET --out runs/mobilenet_v2

Expected top-1: 72.0 % (the paper's table 4). 384 million images to learn from: a GPU that trains 2,500
images a second (benchmarks/training.py measures it) takes 43 hours.
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="mobilenet_v2",
    model=Model("mobilenet_v2", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=300,
        batch_size=96,
        optimizer="rmsprop",
        momentum=0.9,
        weight_decay=4e-5,
        learning_rate=0.045,
        schedule="step",
        decay_rate=0.98,
        decay_epochs=1,
        ema=0.9999,
        precision="bfloat16",
        augment=Augment(crop_scale=(0.08, 1.0), brightness=0.125, saturation=0.5),
    ),
    schemes=("float32", "int8"),
    onnx=("float32",),
    limits=(Limits("int8", max_top1_drop=0.01),),
)
