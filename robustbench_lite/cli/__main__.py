"""`python -m robustbench_lite.cli`, the same as `robust`."""

from robustbench_lite.cli.main import main

main()
