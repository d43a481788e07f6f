//! What summaries see of a batch of rows.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};

use crate::summary::{
    BetaCounts, DdSketch, DecayedSum, Distinct, FirstLast, FixedHistogram, HeavyHitters, JointHistogram, Moments,
    NameCounts, Sample, SecondCounts, Summary, TransitionCounts,
};

/// A summary that can see rows.
pub(super) trait Collect: Summary {
    const OF_VALUES: &'static str;
    const OF_BYTES: &'static str;
    const COLUMNS: &'static [Column];

    /// Sees the rows in which no column is NULL.
    fn see(&mut self, columns: &Columns<'_>) -> Result<()>;
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Whole,
    Text,
    Flag,
}

impl Column {
    /// The type that an argument of type `given` is read as.
    pub(super) fn taken(self, function: &str, given: &DataType) -> Result<DataType> {
        let is_null = given.is_null();
        match self {
            Self::Whole if given.is_integer() || is_null => Ok(DataType::Int64),
            Self::Whole => plan_err!("{function} takes whole numbers: scale and CAST to BIGINT"),
            Self::Text if given.is_string() || is_null => Ok(DataType::Utf8),
            Self::Text => plan_err!("{function} takes text: CAST to VARCHAR"),
            Self::Flag if given == &DataType::Boolean || is_null => Ok(DataType::Boolean),
            Self::Flag => plan_err!("{function} takes true or false"),
        }
    }
}

/// The columns of a batch, of the types that [`Collect::COLUMNS`] says.
pub(super) struct Columns<'a>(pub(super) &'a [ArrayRef]);

impl Columns<'_> {
    fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.0[0].len()).filter(|row| self.0.iter().all(|column| column.is_valid(*row)))
    }

    fn whole(&self, column: usize) -> &Int64Array {
        self.0[column].as_primitive::<Int64Type>()
    }

    fn text(&self, column: usize) -> &StringArray {
        self.0[column].as_string::<i32>()
    }

    fn flag(&self, column: usize) -> &BooleanArray {
        self.0[column].as_boolean()
    }
}

/// One implementation: names of the two functions, columns, and what is done with each row.
macro_rules! collect {
    ($summary:ty, $of_values:literal, $of_bytes:literal, [$($column:ident),+], |$self:ident, $columns:ident, $row:ident| $see:expr) => {
        impl Collect for $summary {
            const OF_VALUES: &'static str = $of_values;
            const OF_BYTES: &'static str = $of_bytes;
            const COLUMNS: &'static [Column] = &[$(Column::$column),+];

            fn see(&mut self, $columns: &Columns<'_>) -> Result<()> {
                let $self = self;
                for $row in $columns.rows() {
                    $see;
                }
                Ok(())
            }
        }
    };
}

collect!(BetaCounts, "beta_counts", "beta_counts_merge", [Flag], |this, columns, row| this
    .insert(columns.flag(0).value(row)));

collect!(DdSketch, "ddsketch", "ddsketch_merge", [Whole], |this, columns, row| {
    if let Ok(value) = u64::try_from(columns.whole(0).value(row)) {
        this.insert(value);
    }
});

collect!(DecayedSum, "decayed_sum", "decayed_sum_merge", [Whole, Whole, Whole], |this, columns, row| this.insert(
    columns.whole(0).value(row),
    columns.whole(1).value(row),
    columns.whole(2).value(row)
));

collect!(Distinct, "distinct_count", "distinct_count_merge", [Text], |this, columns, row| this
    .insert(columns.text(0).value(row)));

collect!(FirstLast, "first_last", "first_last_merge", [Whole, Text], |this, columns, row| this
    .insert(columns.whole(0).value(row), columns.text(1).value(row)));

collect!(HeavyHitters, "heavy_hitters", "heavy_hitters_merge", [Text, Text], |this, columns, row| this
    .insert(columns.text(0).value(row), columns.text(1).value(row)));

collect!(JointHistogram, "joint_histogram", "joint_histogram_merge", [Whole, Whole], |this, columns, row| {
    let tokens = |column: usize| u64::try_from(columns.whole(column).value(row));
    if let (Ok(prompt), Ok(completion)) = (tokens(0), tokens(1)) {
        this.insert(prompt, completion);
    }
});

collect!(Moments, "moments", "moments_merge", [Whole], |this, columns, row| this.insert(columns.whole(0).value(row)));

collect!(NameCounts, "name_counts", "name_counts_merge", [Text], |this, columns, row| this
    .insert(columns.text(0).value(row).to_owned()));

collect!(Sample, "id_sample", "id_sample_merge", [Text], |this, columns, row| this.insert(columns.text(0).value(row)));

collect!(SecondCounts, "second_counts", "second_counts_merge", [Whole], |this, columns, row| this
    .insert(columns.whole(0).value(row)));

collect!(TransitionCounts, "transition_counts", "transition_counts_merge", [Text, Text], |this, columns, row| this
    .insert((columns.text(0).value(row).to_owned(), columns.text(1).value(row).to_owned())));

impl Collect for FixedHistogram {
    const OF_VALUES: &'static str = "fixed_histogram";
    const OF_BYTES: &'static str = "fixed_histogram_merge";
    const COLUMNS: &'static [Column] = &[Column::Whole, Column::Text];

    fn see(&mut self, columns: &Columns<'_>) -> Result<()> {
        // The edges are one literal in all rows, or nearly so.
        let mut parsed: Option<(&str, Vec<i64>)> = None;
        for row in columns.rows() {
            let text = columns.text(1).value(row);
            if parsed.as_ref().is_none_or(|(before, _)| *before != text) {
                match Self::edges(text) {
                    Ok(edges) => parsed = Some((text, edges)),
                    Err(why) => return exec_err!("fixed_histogram: {why}"),
                }
            }
            if let Some((_, edges)) = &parsed {
                self.insert(edges, columns.whole(0).value(row));
            }
        }
        Ok(())
    }
}
