"""The Python interface: a search is a function call, and a run's folder an object."""

import logging
import warnings

# In a notebook, tqdm and Ray ask for ipywidgets when they are imported. Nothing here needs it.
warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("ray.widgets").setLevel(logging.WARNING)
