"""AlexNet on ImageNet, trained as in its paper.

ImageNet Classification with Deep Convolutional Neural Networks, Krizhevsky, Sutskever and Hinton 2012, section 5:
SGD with momentum 0.9, batch size 128, weight decay 5e-4, learning rate 0.01, divided by 10 whenever the validation
error stops falling, 90 epochs; random crops of 224 out of 256 pixels, flips, and PCA lighting of 0.1 (section 4.1).

Two things differ from the paper: one tower, in torchvision's layout, and He initialization instead of Gaussians of 0.01
with biases of 1. A random crop keeps the area of 224 of 256 pixels, anywhere in the photo.

    edge-cv run alexnet --data IMAGENET --out runs/alexnet

Expected top-1: 56.5 % (torchvision's weights of this network, one central crop).
115 million training images in all: 3.2 hours at 10,000 images per second, a rate that is an
example and not measured. A run reports its own rate and the expected time of an epoch after its first steps.
The paper took five to six days on two GTX 580.

Photos that are stored smaller are read faster. Write them once, and train with --data SHARDS:

    edge-cv data prepare IMAGENET SHARDS --short-side 320
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="alexnet",
    model=Model("alexnet", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=90,
        batch_size=128,
        learning_rate=0.01,
        schedule="plateau",
        warmup_epochs=0,
        decay_rate=0.1,
        decay_epochs=5,
        momentum=0.9,
        weight_decay=5e-4,
        precision="auto",
        augment=Augment(crop_scale=(0.766, 0.766), crop_ratio=(1.0, 1.0), lighting=0.1),
    ),
    schemes=("float32", "int8"),
    limits=(Limits("int8", max_top1_drop=0.01),),
)
