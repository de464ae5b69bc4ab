"""Reports of trainings, from the files of their model directories alone: curves and a table."""

from sasa_tf import extras

extras.require(__name__, "yaml")
