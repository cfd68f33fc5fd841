"""Points in time, as files name them."""

from tidegate.clock import Moment as Moment
from tidegate.clock import day_number as day_number
from tidegate.clock import iso as iso
from tidegate.clock import since_epoch_s as since_epoch_s
