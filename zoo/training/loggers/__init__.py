"""Loggers of training. Here belong the zoo's own, each a module of its own with a function from the
iterator of events to an iterator of the same events; plugins bring theirs through the hook
`zoo_loggers`. What a run folder holds without any logger is written in `zoo.training.experiment`.
"""
