"""EfficientNet-Lite0 on ImageNet, as its authors trained it: as EfficientNet B0.

EfficientNet, Tan and Le 2019, section 5.2, and the authors' notes on the lite form (no squeeze-and-excite, ReLU6):
RMSprop with decay and momentum 0.9, weight decay 1e-5, rate 0.256 times 0.97 every 2.4 epochs, batch 4096, 350 epochs.
RandAugment with two operations of magnitude 9 stands in the place of AutoAugment.

A batch of 4096 is made of accumulated steps: fit.batch_size times fit.accumulate.

    edge-cv run recipes/efficientnet_lite0.py --data IMAGENET --out runs/efficientnet_lite0

Expected top-1: 75.1 % (the authors' table of the lite forms). 448 million images to learn from: a GPU
that trains 3,000 images a second (benchmarks/training.py measures it) takes 41 hours.
"""

import dataclasses

from edge_cv.recipe import Limits, Model, load

RECIPE = dataclasses.replace(
    load("efficientnet_b0"),
    name="efficientnet_lite0",
    model=Model("efficientnet_lite0", classes=1000),
    limits=(Limits("int8", max_top1_drop=0.01),),
)
