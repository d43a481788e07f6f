//! A request's body within its limits.

use std::error::Error as _;
use std::io::Read;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use http_body_util::LengthLimitError;

use super::refusal::Refusal;

/// How long a body may take to arrive: a sender that dawdles must not hold a place for good.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// The whole body, if it is not longer than `limit` and arrives in time.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(ARRIVES_WITHIN, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            Err(Refusal::TooLarge(limit))
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::Slow),
    }
}

/// Unpacks gzip up to `limit` bytes: what unpacks without end is cut off in time.
pub(super) fn gunzip(packed: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(packed).take(limit as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > limit => Err(Refusal::TooLarge(limit)),
        Ok(_) => Ok(bytes.into()),
        Err(_) => Err(Refusal::BadBytes("it does not unpack as gzip")),
    }
}

/// Unpacks a block of snappy up to `limit` bytes.
pub(super) fn unsnappy(packed: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let bad = |_| Refusal::BadBytes("it does not unpack as a block of snappy");
    if snap::raw::decompress_len(packed).map_err(bad)? > limit {
        return Err(Refusal::TooLarge(limit));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map(Bytes::from).map_err(bad)
}

/// The value of a header without its parameters, in lower case; empty where it is missing.
pub(super) fn plain(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Runs what takes a while, such as unpacking and parsing, off the threads that answer.
pub(super) async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Refusal::BadBytes("it could not be read")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_cut_off_at_the_limit() {
        let zeros = vec![0; 1 << 20];
        let packed = gzip(&zeros);
        assert!(packed.len() < 4096);
        assert_eq!(gunzip(&packed, zeros.len()).unwrap().len(), zeros.len());
        assert_eq!(gunzip(&packed, zeros.len() - 1), Err(Refusal::TooLarge(zeros.len() - 1)));
        let packed = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
        assert_eq!(unsnappy(&packed, zeros.len()).unwrap().len(), zeros.len());
        assert_eq!(unsnappy(&packed, zeros.len() - 1), Err(Refusal::TooLarge(zeros.len() - 1)));
        // A length of 4 GiB in five bytes, and nothing behind it.
        assert_eq!(unsnappy(&[0xff, 0xff, 0xff, 0xff, 0x0f], 1 << 20), Err(Refusal::TooLarge(1 << 20)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _unpacked = (gunzip(&bytes, 10_000), unsnappy(&bytes, 10_000));
            prop_assert_eq!(gunzip(&gzip(&bytes), 300).unwrap(), bytes);
        }
    }
}
