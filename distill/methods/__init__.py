"""Table of methods: a file and a line each, and those of other packages."""

from typing import Any

from edgestill.distill.methods.base import Method, MethodConfig, Slot
from edgestill.distill.methods.data.ddk import DDK
from edgestill.distill.methods.data.kd3.method import KD3
from edgestill.distill.methods.data.mixup_kd import MixupKD
from edgestill.distill.methods.diswot_plus import DiswotPlus
from edgestill.distill.methods.features.nd import ND
from edgestill.distill.methods.features.ofa import OFA
from edgestill.distill.methods.features.talking import Talking
from edgestill.distill.methods.features.trg import TRG
from edgestill.distill.methods.hard.method import Hard
from edgestill.distill.methods.hard.random_affine import RandomAffine
from edgestill.distill.methods.heads.dhkd import DHKD
from edgestill.distill.methods.heads.dho import DHO
from edgestill.distill.methods.kd import KD
from edgestill.distill.methods.kd_aif.method import KDAIF
from edgestill.distill.methods.language.adpa import ADPA
from edgestill.distill.methods.language.dckd import DCKD
from edgestill.distill.methods.language.opsd import OPSD
from edgestill.distill.methods.language.rlad import RLAD
from edgestill.distill.methods.language.sequence_kd import SequenceKD
from edgestill.distill.methods.language.symbolic import Symbolic
from edgestill.distill.methods.language.tsd_kd import TSDKD
from edgestill.distill.methods.lelp.embedding_regression import EmbeddingRegression
from edgestill.distill.methods.lelp.method import LELP
from edgestill.distill.methods.none import NoDistillation
from edgestill.distill.methods.rkd import RKD
from edgestill.distill.methods.targets.bd_kd import BDKD
from edgestill.distill.methods.targets.dbild import DBiLD
from edgestill.distill.methods.targets.divergence import Divergence
from edgestill.distill.methods.targets.first import FIRST
from edgestill.distill.methods.targets.logit_standardisation import LogitStandardisation
from edgestill.distill.methods.targets.pld import PLD
from edgestill.distill.methods.targets.swing import Swing
from edgestill.distill.methods.targets.taid import TAID
from edgestill.distill.methods.teachers.mst import MST
from edgestill.distill.methods.teachers.online import OnlineTeacher
from edgestill.distill.methods.weights.fixed import FixedWeights
from edgestill.distill.methods.weights.label_anchor import LabelAnchor
from edgestill.distill.methods.weights.mixstd import MixStd
from edgestill.distill.methods.weights.tgeo import TGeo
from edgestill.pipeline.plugins import Table, require_attributes, require_class, require_config


def _line(name: str, found: Any) -> type[Method]:
    require_class(found, Method)
    require_attributes(found, name, "paper", "fills", "Config")
    require_config(found.Config, name, MethodConfig)
    return found  # type: ignore[no-any-return]


METHODS: Table[type[Method]] = Table("methods", _line, {
    "kd": KD,
    "kd_aif": KDAIF,
    "divergence": Divergence,
    "logit_standardisation": LogitStandardisation,
    "pld": PLD,
    "none": NoDistillation,
    "lelp": LELP,
    "rkd": RKD,
    "embedding_regression": EmbeddingRegression,
    "diswot_plus": DiswotPlus,
    "hard": Hard,
    "random_affine": RandomAffine,
    "taid": TAID,
    "nd": ND,
    "fixed_weights": FixedWeights,
    "dbild": DBiLD,
    "first": FIRST,
    "dhkd": DHKD,
    "bd_kd": BDKD,
    "online_teacher": OnlineTeacher,
    "swing": Swing,
    "dho": DHO,
    "mixup_kd": MixupKD,
    "mixstd": MixStd,
    "tgeo": TGeo,
    "ddk": DDK,
    "label_anchor": LabelAnchor,
    "trg": TRG,
    "ofa": OFA,
    "talking": Talking,
    "kd3": KD3,
    "mst": MST,
    "sequence_kd": SequenceKD,
    "symbolic": Symbolic,
    "dckd": DCKD,
    "adpa": ADPA,
    "tsd_kd": TSDKD,
    "opsd": OPSD,
    "rlad": RLAD,
})  # fmt: skip

__all__ = ["KD", "METHODS", "Method", "MethodConfig", "Slot"]
