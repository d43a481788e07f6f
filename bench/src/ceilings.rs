//! What no exactly-once path can beat: taking messages from Kafka, parsing JSON, encoding Parquet, each alone.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use weir_decode::{JsonDecoder, Row, RowDecoder};

use crate::events;
use crate::usage::Mark;

/// Bytes that are copied before the room is used again: about what one hand-over between threads carries.
const COPIED_BYTES: usize = 1 << 20;

/// Events per CPU-second.
pub type Rate = f64;

/// Poll every message of the topic and copy it out of the client, which frees it with the next poll.
pub fn consume(brokers: &str, topic: &str, partitions: i32, messages: u64) -> Result<Rate, Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "weir-bench-ceiling")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let mark = Mark::now();
    consumer.assign(&assignment)?;
    let mut seen = 0u64;
    let mut copied: Vec<u8> = Vec::with_capacity(COPIED_BYTES);
    while seen < messages {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                seen += 1;
                if copied.len() >= COPIED_BYTES {
                    std::hint::black_box(&copied);
                    copied.clear();
                }
                copied.extend_from_slice(message.payload().unwrap_or_default());
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(format!("the broker stopped after {seen} of {messages} messages").into()),
        }
    }
    assert!(!copied.is_empty(), "empty messages");
    Ok(seen as f64 / mark.used().cpu_s)
}

/// Parse every event into sonic-rs's tree.
pub fn decode(sample: &[Vec<u8>], rounds: usize) -> Result<Rate, Box<dyn Error>> {
    let mark = Mark::now();
    for _ in 0..rounds {
        for event in sample {
            let value: sonic_rs::Value = sonic_rs::from_slice(event)?;
            std::hint::black_box(&value);
        }
    }
    Ok((sample.len() * rounds) as f64 / mark.used().cpu_s)
}

/// Decode every event into columns with our own decoder: what of the decode ceiling is reached.
pub fn decode_own(sample: &[Vec<u8>], rounds: usize) -> Result<Rate, Box<dyn Error>> {
    let schema = weir_schemas::Request::contract().arrow_schema();
    let mut decoder = JsonDecoder::new(&schema).map_err(|_| "the contract cannot be decoded")?;
    let rows: Vec<Row<'_>> = sample.iter().enumerate().map(|(message, bytes)| Row { message, bytes }).collect();
    let mark = Mark::now();
    for _ in 0..rounds {
        for rows in rows.chunks(4_096) {
            let decoded = decoder.decode(rows);
            assert!(decoded.rejected.is_empty(), "the sample is good");
            std::hint::black_box(&decoded.pieces);
        }
    }
    Ok((sample.len() * rounds) as f64 / mark.used().cpu_s)
}

/// Encode decoded batches as Parquet, as the tables do.
pub fn encode(batches: &[RecordBatch], rounds: usize) -> Result<Rate, Box<dyn Error>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mark = Mark::now();
    for _ in 0..rounds {
        let properties = weir_store::writer_properties(&batches[0].schema());
        let mut writer = ArrowWriter::try_new(std::io::sink(), batches[0].schema(), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.close()?;
    }
    Ok((rows * rounds) as f64 / mark.used().cpu_s)
}

/// Events as bytes and as the batches that they decode into.
pub struct Sample {
    pub events: Vec<Vec<u8>>,
    pub batches: Vec<RecordBatch>,
}

/// The first `n` events, decoded by arrow-json.
pub fn sample(n: u64) -> Result<Sample, Box<dyn Error>> {
    let events: Vec<Vec<u8>> = (0..n).map(events::event).collect();
    let schema = weir_schemas::Request::contract().arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(8_192).build_decoder()?;
    let mut batches = Vec::new();
    for event in &events {
        decoder.decode(event)?;
        if decoder.len() == 8_192 {
            batches.extend(decoder.flush()?);
        }
    }
    batches.extend(decoder.flush()?);
    Ok(Sample { events, batches })
}
