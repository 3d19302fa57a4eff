"""robustbench-lite: how robust is a classifier, and how far can that number be trusted?"""

__version__ = "0.1.0"
