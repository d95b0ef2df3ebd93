"""`rejects.parquet`: every image that could not be used, and why."""

from __future__ import annotations

from ingest.ledger import Ledger
from search.folder import DataFolder, writing

__all__ = ["write_rejects"]


def write_rejects(folder: DataFolder, ledger: Ledger) -> None:
    """Write the ledger's rejects as a table, atomically; no file where there are none.

    Raises:
        DataFolderError: the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rejects = ledger.rejects()
    with writing(folder.root):
        if not rejects:
            folder.rejects.unlink(missing_ok=True)
            return
        table = pa.Table.from_pydict(
            {
                "dataset": [dataset for dataset, _ in rejects],
                "key": [reject.key for _, reject in rejects],
                "path": [reject.path for _, reject in rejects],
                "reason": [reject.reason.value for _, reject in rejects],
                "detail": [reject.detail for _, reject in rejects],
            }
        )
        temporary = folder.rejects.with_name(".rejects.parquet.part")
        pq.write_table(table, temporary)
        temporary.replace(folder.rejects)
