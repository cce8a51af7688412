"""How a record of a log looks."""

import logging

from supervisor.system.log_text import indented, one_line


class Formatter(logging.Formatter):
    """A record is one line; the lines of its traceback follow it, indented.

    Everything in it is escaped here, in the one place that all of it passes: whoever logs a name need not think of it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as it is written."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        lines = [one_line(self.formatMessage(record))]
        if record.exc_info:
            lines.append(indented(self.formatException(record.exc_info)))
        if record.stack_info:
            lines.append(indented(record.stack_info))
        return "\n".join(lines)
