import logging
import logging.config
from logging.handlers import MemoryHandler
from pathlib import Path

from serve.engine.patches.log_handlers import kept


def test_a_buffering_handler_still_reaches_its_file_after_logging_was_configured_anew(tmp_path: Path) -> None:
    logger, file = logging.getLogger("ratchet-test-handlers"), tmp_path / "log"
    handler = MemoryHandler(1, target=logging.FileHandler(file))
    logger.addHandler(handler)
    try:
        with kept(logger.name):
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
            assert handler.target is None, "this is what it is about"
        logger.error("after")
        assert file.read_text() == "after\n"
    finally:
        logger.removeHandler(handler)
