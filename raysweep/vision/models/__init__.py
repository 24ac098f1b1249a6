"""Networks by name: the ResNets of the source paper, torchvision's classifiers, and those a user registered.

* `resnets`          builds a ResNet from its layout
* `build`            any network from its config; whether it takes images of a size
* `summary`          parameters, FLOPs and stage sizes, from one pass on the meta device
* `receptive_field`  followed through that pass, operator by operator
"""
