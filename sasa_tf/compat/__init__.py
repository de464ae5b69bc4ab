"""Private APIs of TensorFlow, Keras, Orbit and Model Garden.

Every use of a name that these libraries do not document is in this package, one module per library
and one test per function, so that a new release of a library changes one file.
"""
