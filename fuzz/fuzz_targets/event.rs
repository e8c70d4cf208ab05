//! Any bytes as an event of the datapath: what is read is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_abi::event::Event;

fuzz_target!(|bytes: &[u8]| {
    let Some(event) = Event::from_bytes(bytes) else { return };
    let again = match event {
        Event::Drop(e) => {
            let _ = e.reason();
            e.to_bytes().to_vec()
        }
        Event::Trace(e) => {
            let _ = (e.point(), e.ct_status());
            e.to_bytes().to_vec()
        }
        Event::PolicyVerdict(e) => e.to_bytes().to_vec(),
    };
    assert_eq!(Event::from_bytes(&again), Some(event));
});
