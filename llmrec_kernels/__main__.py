"""`python -m llmrec_kernels`: the command line, for launchers that take a module."""

from llmrec_kernels.cli import main

if __name__ == "__main__":
    main()
