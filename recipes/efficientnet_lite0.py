"""EfficientNet-Lite0 on ImageNet, trained as its authors did: as EfficientNet-B0.

EfficientNet, Tan and Le 2019, section 5.2, and the authors' notes on Lite models (no squeeze-and-excitation, ReLU6):
RMSprop with decay and momentum 0.9, weight decay 1e-5, learning rate 0.256, times 0.97 every 2.4 epochs, batch size
4096, 350 epochs. RandAugment with two operations of magnitude 9 replaces AutoAugment.

The batch of 4096 is accumulated: fit.batch_size times fit.accumulate.

    edge-cv run efficientnet_lite0 --data IMAGENET --out runs/efficientnet_lite0

Expected top-1: 75.1 % (the authors' table of Lite models).
448 million training images in all: 41 hours at 3,000 images per second, a rate that is an
example and not measured. A run reports its own rate and the expected time of an epoch after its first steps.

Photos that are stored smaller are read faster. Write them once, and train with --data SHARDS:

    edge-cv data prepare IMAGENET SHARDS --short-side 320
"""

import dataclasses

from edge_cv.recipe import Limits, Model, load

RECIPE = dataclasses.replace(
    load("efficientnet_b0"),
    name="efficientnet_lite0",
    model=Model("efficientnet_lite0", classes=1000),
    limits=(Limits("int8", max_top1_drop=0.01),),
)
