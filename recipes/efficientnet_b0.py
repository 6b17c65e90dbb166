"""EfficientNet B0 on ImageNet, as its paper trained it.

EfficientNet, Tan and Le 2019, section 5.2: RMSprop with decay and momentum 0.9, weight decay 1e-5, rate 0.256 times
0.97 every 2.4 epochs, batch 4096, 350 epochs, stochastic depth, and an average of the weights. RandAugment with two
operations of magnitude 9 stands in the place of AutoAugment.

A batch of 4096 is made of accumulated steps: fit.batch_size times fit.accumulate.

    edge-cv run recipes/efficientnet_b0.py --data IMAGENET --out runs/efficientnet_b0

Expected top-1: 77.1 % (the paper's table 2). 448 million images to learn from: a GPU that trains
2,000 images a second (benchmarks/training.py measures it) takes 62 hours.
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="efficientnet_b0",
    model=Model("efficientnet_b0", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=350,
        batch_size=512,
        accumulate=8,
        optimizer="rmsprop",
        momentum=0.9,
        weight_decay=1e-5,
        learning_rate=0.256,
        warmup_epochs=5,
        schedule="step",
        decay_rate=0.97,
        decay_epochs=2.4,
        ema=0.9999,
        precision="bfloat16",
        augment=Augment(crop_scale=(0.08, 1.0), randaugment=2, magnitude=9.0, label_smoothing=0.1),
    ),
    schemes=("float32", "int8"),
    onnx=("float32",),
    limits=(Limits("int8", max_top1_drop=0.02),),
)
