"""What a run leaves for a person: its record, its figures, and one page that shows them."""

from vibnet.report.page import write_page as write_page
from vibnet.report.record import Recorded as Recorded
from vibnet.report.record import read as read
from vibnet.report.rows import Row as Row
from vibnet.report.rows import rows as rows
