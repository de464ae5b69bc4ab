"""All-reduces within the XLA programs of several replicas.

TensorFlow reduces between two XLA programs, and the host waits for the result. Here an XLA custom
call reduces, by NCCL on GPUs, so that forward pass, backward pass, all-reduce and update are one
program. `sasa_tf/native/collectives` has the compiled part.
"""
