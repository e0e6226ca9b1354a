# SPDX-License-Identifier: Apache-2.0
"""What is known of the CUDA kernels without a GPU: ``python -m bench.cuda_report``.

``cubins`` compiles every kernel for every architecture, ``sass`` reads its loops, ``occupancy`` how
many blocks fit, ``workloads`` what the emulator counts, ``roofline`` what may be expected, ``gates``
what is asked for, ``page`` writes docs/gpu.md. What is one op's stands in its file in bench/, as
``entries`` says.
"""
