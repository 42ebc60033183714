"""One function a verb, and the only place where the rooms are wired together. Rooms are imported inside the functions: `mltrain status`
must not pay for torch."""
from __future__ import annotations

from mltrain.api.checkpoints import diff as diff
from mltrain.api.checkpoints import digest_checkpoint as digest_checkpoint
from mltrain.api.checkpoints import export as export
from mltrain.api.checkpoints import list_checkpoints as list_checkpoints
from mltrain.api.checkpoints import prune as prune
from mltrain.api.checkpoints import verify_checkpoint as verify_checkpoint
from mltrain.api.datasets import inspect_data as inspect_data
from mltrain.api.datasets import prepare as prepare
from mltrain.api.datasets import verify_data as verify_data
from mltrain.api.jobs import cancel as cancel
from mltrain.api.jobs import chaos as chaos
from mltrain.api.jobs import logs as logs
from mltrain.api.jobs import resume as resume
from mltrain.api.jobs import run_keys as run_keys
from mltrain.api.jobs import run_names as run_names
from mltrain.api.jobs import status as status
from mltrain.api.jobs import time_spent as time_spent
from mltrain.api.recipes import check as check
from mltrain.api.recipes import checked as checked
from mltrain.api.recipes import compose as compose
from mltrain.api.recipes import copy as copy
from mltrain.api.recipes import key_names as key_names
from mltrain.api.recipes import new as new
from mltrain.api.recipes import option_names as option_names
from mltrain.api.recipes import recipe_names as recipe_names
from mltrain.api.recipes import recipes as recipes
from mltrain.api.recipes import refuse as refuse
from mltrain.api.recipes import show as show
from mltrain.api.reports import replay as replay
from mltrain.api.reports import report as report
from mltrain.api.reports import write_report as write_report
from mltrain.api.running import agent as agent
from mltrain.api.running import doctor as doctor
from mltrain.api.running import launch as launch
from mltrain.api.running import redacted as redacted
from mltrain.api.running import render as render
from mltrain.api.running import worker as worker
