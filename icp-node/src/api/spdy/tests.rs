use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Frames of a port-forward as Go's `compress/zlib` with the preset dictionary writes them: `zlib.compressobj(9,
/// zdict=...)` with a sync flush after each block, which is the same format.
const GOLDEN: &[u8] = include_bytes!("port-forward.bin");

fn own(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn all(wire: &[u8], read: usize) -> Result<Vec<Frame>, SpdyError> {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    for part in wire.chunks(read) {
        decoder.feed(part);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn the_dictionary_is_the_drafts() {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in DICTIONARY {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    assert_eq!((b << 16) | a, 0xe3c6_a7c2);
}

#[test]
fn a_real_clients_frames() {
    for read in [1, 7, 4096] {
        let frames = all(GOLDEN, read).unwrap();
        let open = |stream, kind, fin| Frame::Open {
            stream,
            headers: own(&[("port", "8080"), ("requestid", "0"), ("streamtype", kind)]),
            fin,
        };
        assert_eq!(
            frames,
            [
                open(1, "error", false),
                Frame::Data { stream: 1, data: Bytes::new(), fin: true },
                open(3, "data", false),
                Frame::Data { stream: 3, data: Bytes::from_static(b"GET / HTTP/1.0\r\n\r\n"), fin: false },
                Frame::Ping(1),
                Frame::Reset { stream: 3 },
                Frame::GoAway,
            ]
        );
    }
}

#[test]
fn replies_decompress_to_no_headers() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for stream in [1_u32, 3, 5] {
        let reply = encoder.reply(stream);
        assert_eq!(&reply[..4], &[0x80, 3, 0, 2]);
        let block = decoder.headers(&reply[12..]).unwrap();
        assert_eq!(&block[..], &[0, 0, 0, 0]);
    }
}

#[test]
fn limits_and_nonsense() {
    assert_eq!(all(&[0x80, 2, 0, 1, 0, 0, 0, 0], 8), Err(SpdyError::Version(2)));
    assert_eq!(all(&[0x80, 3, 0, 3, 0, 0, 0, 0], 8), Err(SpdyError::Malformed(3)));
    assert!(matches!(all(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], 8), Err(SpdyError::TooLong { .. })));
    let syn = |block: &[u8]| {
        let mut body = Vec::from([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(block);
        all(&control(SYN_STREAM, 0, &body), 64)
    };
    assert!(matches!(syn(&[]), Err(SpdyError::Compression(_))));
    assert!(matches!(syn(&[0x78, 0x01, 0xff, 0xff]), Err(SpdyError::Compression(_))));
    // A bomb: a block that says there are more headers than bytes, and one that is huge.
    let mut block = Vec::from([0x78, 0x01]);
    block.extend(stored(&u32::MAX.to_be_bytes()));
    assert_eq!(syn(&block), Err(SpdyError::Malformed(SYN_STREAM)));
    let mut block = Vec::from([0x78, 0x01]);
    block.extend(stored(&alloc::vec![0; HEADERS_BYTES_MAX + 1]));
    assert_eq!(syn(&block), Err(SpdyError::TooLong { max: HEADERS_BYTES_MAX }));
}

proptest! {
    /// Whatever comes, the decoder answers and does not run on.
    #[test]
    fn never_panics(mut wire in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u8..10) {
        if wire.len() > 8 {
            wire[..8].copy_from_slice(&[0x80, 3, 0, kind, 0, 0, 0, 60]);
        }
        let _ = all(&wire, 50);
    }

    #[test]
    fn data_survives(stream in 1_u32..0x7fff_ffff, bytes in prop::collection::vec(any::<u8>(), 0..5000), fin: bool) {
        let expected = Frame::Data { stream, data: bytes.clone().into(), fin };
        prop_assert_eq!(all(&data(stream, &bytes, fin), 999), Ok(Vec::from([expected])));
    }
}
