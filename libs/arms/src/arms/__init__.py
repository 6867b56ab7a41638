"""Arms answer a question by its embedding: how they are fitted, what they say, and the files they are handed on in."""

from arms.answering import Arm, Head, Nearest, Numbers, Places, Shown
from arms.files import Facts, FittedArm, WrongArm, pack, prove, unpack
from arms.fitting import MOST_CLASSES, MOST_ROWS, Fit, Groups, fit, kinds_for, sample
from arms.study import data_report
from schemas.questions import question_of

__all__ = [
    "MOST_CLASSES",
    "MOST_ROWS",
    "Arm",
    "Facts",
    "Fit",
    "FittedArm",
    "Groups",
    "Head",
    "Nearest",
    "Numbers",
    "Places",
    "Shown",
    "WrongArm",
    "data_report",
    "fit",
    "kinds_for",
    "pack",
    "prove",
    "question_of",
    "sample",
    "unpack",
]
