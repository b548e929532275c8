"""Other methods of unlearning, each as its source has it: vanilla model, forget set, retain set -> an `Edit`.

`methods` names them with their settings, `terms` has their losses, `training` trains whole weights in place and takes
the change out again, `saliency` and `neurons` choose weights and neurons, `refusals` has the answers of IDK.
"""

from mipnb.baselines.methods import METHODS, Method, baseline, default_settings
from mipnb.baselines.refusals import refusing
from mipnb.baselines.settings import Settings

__all__ = ["METHODS", "Method", "Settings", "baseline", "default_settings", "refusing"]
