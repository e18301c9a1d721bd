"""What loading a model's files would run, found out without loading them: their pickles, and other code in them.

Sources: CPython, Lib/pickletools.py (opcodes); joblib, numpy_pickle.py (arrays between opcodes); PyTorch,
torch/serialization.py (zip of pickles, and several one after another); NumPy, NEP 1 (.npy); Keras 3, saving_lib.py.
"""

from __future__ import annotations

from modelrel.pickles.files import Finding, examine, worst
from modelrel.pickles.gate import Admitted, admit
from modelrel.pickles.names import Verdict

__all__ = ["Admitted", "Finding", "Verdict", "admit", "examine", "worst"]
