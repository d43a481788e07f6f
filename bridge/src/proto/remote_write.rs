//! Prometheus remote-write: `prometheus.WriteRequest` (1.0) and `io.prometheus.write.v2.Request` (2.0).
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>, <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>

/// A request of protocol 1.0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    /// Series with their samples.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// One series of protocol 1.0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Its labels; `__name__` is its metric.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Its samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms: only their number is read.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Unread>,
}

/// A name and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Label {
    /// The label's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A value at a time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A message none of whose fields is read.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Unread {}

/// A request of protocol 2.0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Every string of the request, once; the first is empty.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// Series with their samples.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeriesV2>,
}

/// One series of protocol 2.0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeriesV2 {
    /// Pairs of indexes into the symbols: name, value, name, value.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Its samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Native histograms: only their number is read.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Unread>,
}
