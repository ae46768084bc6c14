use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::reader::Reader;
use super::*;
use crate::dns::tests::fixture::{cluster, query};
use crate::dns::{Outcome, Transport, answer};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a text in which `.` ends nothing and spaces mean nothing.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn answered(packet: &[u8], transport: Transport) -> Vec<u8> {
    let mut out = Vec::new();
    let outcome = answer(&cluster().snapshot(), packet, transport, &mut out);
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    out
}

/// Written out by hand from RFC 1035 and 6891.
#[test]
fn packets_are_these_bytes() {
    let name = "04 73766331 06 746573746e73 03 737663 07 636c7573746572 05 6c6f63616c 00";
    // RD, one question, an OPT record with 4096 bytes.
    let asked = bytes(&format!("cafe 0100 0001 0000 0000 0001 {name} 0001 0001 00 0029 1000 00000000 0000"));
    assert_eq!(
        query(
            "svc1.testns.svc.cluster.local",
            rtype::A,
            0xcafe,
            Some(Edns { udp_bytes: 4096, ..Edns::default() })
        ),
        asked
    );
    // QR AA RD RA; the answer's owner is a pointer to the question; OPT says 1232 bytes.
    let expected = format!(
        "cafe 8580 0001 0001 0000 0001 {name} 0001 0001 c00c 0001 0001 00000005 0004 0a000001 00 0029 04d0 00000000 0000"
    );
    assert_eq!(hex(&answered(&asked, Transport::Udp)), hex(&bytes(&expected)));

    // SRV: the target is written out, the additional record points into the question behind `_http._tcp`.
    let asked = query("_http._tcp.svc1.testns.svc.cluster.local", rtype::SRV, 1, None);
    let question = format!("05 5f68747470 04 5f746370 {name} 0021 0001");
    let expected = format!(
        "0001 8580 0001 0001 0000 0001 {question} c00c 0021 0001 00000005 0025 0000 0064 0050 {name} \
         c017 0001 0001 00000005 0004 0a000001"
    );
    assert_eq!(hex(&answered(&asked, Transport::Udp)), hex(&bytes(&expected)));

    // No such name: the SOA record of the zone, whose names point into the question.
    let asked = query("x.cluster.local", rtype::A, 2, None);
    let expected = "0002 8583 0001 0000 0001 0000 01 78 07 636c7573746572 05 6c6f63616c 00 0001 0001 \
        c00e 0006 0001 00000005 002a 02 6e73 03 646e73 c00e 0a 686f73746d6173746572 c00e \
        595e3b6f 00001c20 00000708 00015180 00000005";
    let shown = hex(&answered(&asked, Transport::Udp));
    assert_eq!(shown, hex(&bytes(expected)));
}

#[test]
fn what_is_no_query_is_refused() {
    let parse = |packet: &[u8]| Query::parse(packet).map(|_| ()).unwrap_err();
    let good = query("a.b", rtype::A, 7, Some(Edns::default()));
    assert!(Query::parse(&good).is_ok());
    // Cut anywhere.
    for end in 0..good.len() {
        let refusal = parse(&good[..end]);
        assert_eq!(refusal == Refusal::Drop, end < HEADER_BYTES, "{end}");
    }
    let formerr = Refusal::Reply { id: 7, flags: 0x0100, rcode: rcode::FORMERR };
    let change = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        packet
    };
    let longer = [&good[..], &[0]].concat();
    assert_eq!(parse(&longer), formerr, "bytes behind the end");
    assert_eq!(parse(&change(2, 0x81)), Refusal::Drop, "an answer");
    assert_eq!(
        parse(&change(2, 0x21)),
        Refusal::Reply { id: 7, flags: 0x2100, rcode: rcode::NOTIMP },
        "NOTIFY"
    );
    assert_eq!(parse(&change(5, 0)), formerr, "no question");
    assert_eq!(parse(&change(5, 2)), formerr, "two questions");
    assert_eq!(parse(&change(12, 0xc0)), formerr, "a pointer in the question");
    assert_eq!(parse(&change(12, 0x41)), formerr, "a reserved label");
    let opt = &good[good.len() - 11..];
    let mut twice = [&good[..], opt].concat();
    twice[11] = 2;
    assert_eq!(parse(&twice), formerr, "two OPT records");
    let mut named = good[..good.len() - 11].to_vec();
    named.extend_from_slice(&[1, b'x']);
    named.extend_from_slice(opt);
    assert_eq!(parse(&named), formerr, "OPT with a name");
    let mut options = good.clone();
    let end = options.len();
    options[end - 1] = 5;
    options.extend_from_slice(&[0, 10, 0, 9, 1]);
    assert_eq!(parse(&options), formerr, "an option longer than its record");
}

#[test]
fn pointers_only_point_back() {
    let header = "0000 8000 0001 0001 0000 0000 01 61 00 0001 0001";
    let decode =
        |rest: &str| Message::decode(&bytes(&format!("{header}{rest}"))).map(|m| m.records[0].1.name.clone());
    let tail = "0001 0001 00000000 0004 01020304";
    assert_eq!(decode(&format!("c00c {tail}")).unwrap(), "a".parse().unwrap());
    assert_eq!(decode(&format!("01 62 c00c {tail}")).unwrap(), "b.a".parse().unwrap());
    assert_eq!(decode(&format!("c013 {tail}")), Err(WireError::PointerNotBack), "to itself");
    assert_eq!(decode(&format!("01 62 c013 {tail}")), Err(WireError::PointerNotBack), "a circle of a label");
    assert_eq!(decode(&format!("c0ff {tail}")), Err(WireError::PointerNotBack), "forward");
    assert_eq!(decode(&format!("80 {tail}")), Err(WireError::ReservedLabel));
    assert_eq!(
        decode("c00c 0001 0001 00000000 0003 010203"),
        Err(WireError::BadData),
        "an A record of three bytes"
    );
    assert_eq!(
        decode("c00c 0005 0001 00000000 0003 c00c 00"),
        Err(WireError::BadData),
        "bytes behind a name"
    );
    assert_eq!(
        decode("c00c 0006 0001 00000000 0004 c00c c00c"),
        Err(WireError::BadData),
        "SOA without numbers"
    );
    assert_eq!(
        decode("c00c 0005 0001 00000000 0001 c0"),
        Err(WireError::Short),
        "a name that leaves its record"
    );
    // A chain of pointers, each to the one before, that makes a long name: 127 labels at most.
    let mut packet = bytes("0000 8000 0001 0000 0000 0000");
    let mut previous = packet.len();
    packet.push(0);
    packet.extend_from_slice(&[0, 1, 0, 1]);
    for _ in 0..200 {
        let here = packet.len();
        packet.extend_from_slice(&[1, b'x', 0xc0 | (previous >> 8) as u8, previous as u8]);
        previous = here;
    }
    let mut reader = Reader::new(&packet, previous);
    assert_eq!(reader.name(), Err(WireError::NameTooLong));
}

fn any_name() -> impl Strategy<Value = Name> {
    let label =
        prop_oneof![Just(b"a".to_vec()), Just(b"Bc".to_vec()), proptest::collection::vec(any::<u8>(), 1..12)];
    proptest::collection::vec(label, 0..6)
        .prop_map(|labels| Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap())
}

fn any_record() -> impl Strategy<Value = Record> {
    let data =
        (any_name(), any_name(), proptest::collection::vec(any::<u8>(), 20)).prop_flat_map(|(a, b, more)| {
            let (a, b) = (a.as_wire().to_vec(), b.as_wire().to_vec());
            prop_oneof![
                Just((rtype::A, more[..4].to_vec())),
                Just((rtype::AAAA, more[..16].to_vec())),
                Just((rtype::CNAME, a.clone())),
                Just((rtype::PTR, b.clone())),
                Just((rtype::MX, [&more[..2], &a].concat())),
                Just((rtype::SRV, [&more[..6], &a].concat())),
                Just((rtype::SOA, [&a[..], &b, &more].concat())),
                Just((rtype::TXT, [&[19], &more[..19]].concat())),
                Just((60_000, more)),
            ]
        });
    (any_name(), 0..=0x7fff_ffff_u32, data).prop_map(|(name, ttl_secs, (rtype, data))| Record {
        name,
        rtype,
        class: CLASS_IN,
        ttl_secs,
        data,
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let edns = proptest::option::of((512..5000_u16, any::<bool>()));
    let sections = [
        proptest::collection::vec(any_record(), 0..6),
        proptest::collection::vec(any_record(), 0..3),
        proptest::collection::vec(any_record(), 0..6),
    ];
    (any::<u16>(), any_name(), sections, edns, 0..16_u16).prop_map(|(id, name, sections, edns, rcode)| {
        let [answers, authorities, additionals] = sections;
        let of = |section, records: Vec<Record>| records.into_iter().map(move |r| (section, r));
        let records = of(Section::Answer, answers)
            .chain(of(Section::Authority, authorities))
            .chain(of(Section::Additional, additionals));
        Message {
            header: Header { id, flags: Header::RESPONSE | Header::RECURSION_DESIRED, rcode },
            question: Question { name, rtype: rtype::A, class: CLASS_IN },
            records: records.collect(),
            edns: edns.map(|(udp_bytes, dnssec_ok)| Edns { udp_bytes, version: 0, dnssec_ok }),
            extended_errors: Vec::new(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn messages_survive_the_wire(message in any_message()) {
        let mut packet = Vec::new();
        message.encode(MESSAGE_BYTES_MAX, None, &mut packet);
        prop_assert_eq!(Message::decode(&packet).unwrap(), message);
    }

    #[test]
    fn a_limit_cuts_between_records(message in any_message(), limit in 512..1500_usize) {
        let mut packet = Vec::new();
        message.encode(limit, Some(ExtendedError::NotReady), &mut packet);
        prop_assert!(packet.len() <= limit);
        let cut = Message::decode(&packet).unwrap();
        prop_assert_eq!(cut.extended_errors, if message.edns.is_some() { Vec::from([14]) } else { Vec::new() });
        let needed = |m: &Message| -> Vec<Record> {
            m.section(Section::Answer).chain(m.section(Section::Authority)).cloned().collect()
        };
        let (all, kept) = (needed(&message), needed(&Message::decode(&packet).unwrap()));
        prop_assert!(all.starts_with(&kept));
        prop_assert_eq!(cut.header.flags & Header::TRUNCATED != 0, kept.len() < all.len());
    }

    #[test]
    fn no_packet_is_too_odd(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_any(&noise)?;
        drop(Message::decode(&noise));
    }

    #[test]
    fn no_query_is_too_odd(
        name in prop_oneof![Just("_http._tcp.hdls1.testns.svc.cluster.local"), Just("external.testns.svc.cluster.local"),
            Just("4.3.2.1.in-addr.arpa"), Just("cluster.local"), Just(".")],
        rtype in prop_oneof![Just(1_u16), Just(33), Just(255), any::<u16>()],
        changes in proptest::collection::vec((0..80_usize, any::<u8>()), 0..4),
        edns in proptest::option::of(any::<u16>()),
    ) {
        let edns = edns.map(|udp_bytes| Edns { udp_bytes, version: 0, dnssec_ok: true });
        let mut packet = query(name, rtype, 9, edns);
        for (at, to) in changes {
            let length = packet.len();
            packet[at % length] = to;
        }
        check_any(&packet)?;
        let mut out = Vec::new();
        if let Outcome::Reply(_) = answer(&cluster().snapshot(), &packet, Transport::Udp, &mut out) {
            // What we say can be read, unless it repeats no question.
            prop_assert!(out.len() == HEADER_BYTES || Message::decode(&out).is_ok(), "{}", hex(&out));
        }
    }
}

/// Whatever comes in, what goes out is an answer to it of the right size.
fn check_any(packet: &[u8]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let snapshot = cluster().snapshot();
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, MESSAGE_BYTES_MAX)] {
        if let Outcome::Reply(_) = answer(&snapshot, packet, transport, &mut out) {
            prop_assert!((HEADER_BYTES..=limit).contains(&out.len()));
            prop_assert_eq!(&out[..2], &packet[..2]);
            prop_assert!(out[2] & 0x80 != 0 && packet[2] & 0x80 == 0);
        }
    }
    Ok(())
}
