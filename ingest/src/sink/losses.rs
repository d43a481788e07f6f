//! What Kafka no longer holds, at an assignment: gaps that others have begun are finished, and, where the configuration says
//! so, what retention has removed becomes a gap.

use std::collections::BTreeMap;

use super::Sink;
use crate::gaps::{self, Cause, Decided, Move};
use crate::source::Watermarks;
use crate::{OnDataLoss, Result};

/// Others may move a position in between; more often than this it is no accident.
const ATTEMPTS: u32 = 3;

impl<F: FnMut(&str, i64, u64) + Send> Sink<F> {
    /// Reads the tables anew. No position that is read after this stands at the end of a gap that is not recorded, unless a
    /// commit that expects it is bound to be fenced.
    pub(super) async fn refresh_settled(&mut self) -> Result<()> {
        loop {
            self.refresh().await?;
            if !gaps::settle(&self.store, &self.config.job).await? {
                return Ok(());
            }
        }
    }

    /// Where the configuration says "count": positions that retention has passed move to the lowest offset that is left,
    /// and what lies between is recorded. A position beyond the end is no such loss: going back would store rows twice.
    pub(super) async fn pass_over_losses(&mut self, assigned: &[Watermarks]) -> Result<()> {
        if self.config.on_data_loss == OnDataLoss::Stop {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let mut moves = Vec::new();
            for watermarks in assigned {
                moves.extend(self.lost(watermarks).await?);
            }
            if moves.is_empty() {
                return Ok(());
            }
            // What Kafka refused meanwhile was this loss.
            self.refused_among.clear();
            let decided = Decided { actor: "ingest".to_owned(), reason: Some("on_data_loss = \"count\"".to_owned()) };
            gaps::make(&self.store, &self.config.job, Cause::DataLoss, decided, moves).await?;
            self.refresh_settled().await?;
        }
        Ok(())
    }

    async fn lost(&mut self, watermarks: &Watermarks) -> Result<Option<Move>> {
        let Watermarks { partition, low, .. } = *watermarks;
        let positions = self.positions(partition).await?;
        let lost: Vec<(usize, i64)> = positions
            .into_iter()
            .enumerate()
            .filter_map(|(feed, position)| Some((feed, position.filter(|position| *position < low)?)))
            .collect();
        let Some(from) = lost.iter().map(|(_, position)| *position).min() else { return Ok(None) };
        let topic = &self.topics[partition.0];
        let name = |feed: usize| self.tables[topic.feeds[feed]].table.name().to_owned();
        let tables: BTreeMap<_, _> = lost.into_iter().map(|(feed, position)| (name(feed), Some(position))).collect();
        Ok(Some(Move { topic: topic.stored.clone(), partition: partition.1, from, to: low, tables }))
    }
}
