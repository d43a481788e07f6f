//! Rows of one table on their way into files, encoded beside the sink as they come.

use arrow::array::RecordBatch;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_store::{StoreError, Table, Written};

/// Batches that wait to be encoded; more make the sink wait, and with it everything before it.
const BATCHES_WAITING: usize = 4;

enum Step {
    Rows(RecordBatch),
    End,
}

/// Files that grow until a commit names them. Dropped before that, what was written is given up.
pub(crate) struct Writing {
    steps: mpsc::Sender<Step>,
    written: JoinHandle<Result<Written, StoreError>>,
}

impl Writing {
    pub(crate) fn start(table: &Table) -> Self {
        let (steps, mut coming) = mpsc::channel(BATCHES_WAITING);
        let mut writer = table.rows_writer();
        // Encoding computes for milliseconds at a time: not on the threads that others wait on.
        let runtime = Handle::current();
        let written = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                while let Some(step) = coming.recv().await {
                    match step {
                        Step::Rows(batch) => {
                            if let Err(error) = writer.write(&batch).await {
                                writer.abort().await;
                                return Err(error);
                            }
                        }
                        Step::End => return writer.close().await,
                    }
                }
                writer.abort().await;
                Ok(Written::default())
            })
        });
        Self { steps, written }
    }

    /// Hands rows over. If writing has failed, [`Writing::end`] tells why.
    pub(crate) async fn push(&self, batch: RecordBatch) {
        self.steps.send(Step::Rows(batch)).await.ok();
    }

    /// The files, complete.
    pub(crate) async fn end(self) -> Result<Written, StoreError> {
        self.steps.send(Step::End).await.ok();
        match self.written.await {
            Ok(written) => written,
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}
