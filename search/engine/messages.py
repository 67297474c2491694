"""The keys of what passes between the driver and its workers: Ray carries plain dictionaries."""

NUMBER = "number"
"""In a Ray trial's config: Optuna's number of the trial."""
RECIPE = "recipe"
"""In a Ray trial's config: the recipe, as a dictionary."""
CUT_OFF = "cut_off"
"""In a Ray trial's config: whether it has run before, so that there may be a checkpoint to go on from."""
FINISHED = "finished"
"""In a worker's result: whether the fine-tune is at its own end.

A worker never says `done`: Ray would then end the trial without asking the scheduler.
"""
FAILED = "failed"
"""In a worker's result, instead of an epoch: why the fine-tune came to nothing."""
TOLD = "told"
"""In a worker's result: whether it comes from a checkpoint, computed before and now told again."""
UNSAVED = "unsaved"
"""In a worker's result, where a checkpoint of this worker was not kept: an `Unsaved`, which Ray does not take apart.

It may be about the worker's previous trial.
"""
NODE_FAILED = "node_failed"
"""In a worker's result, instead of an epoch: why its node, and not the fine-tune, is at fault."""
RESTING = "resting"
"""In a worker's result, instead of an epoch: its node failed, and the worker waits to be given another trial."""
NOTE = "note"
"""In a worker's result: a sentence about its node for the user."""
