use super::*;

#[test]
fn what_is_set_is_there_until_it_is_deleted() {
    let bucket = open("b").unwrap();
    bucket.set("text", "kite").unwrap();
    bucket.set("bytes", [0xff]).unwrap();
    bucket.set_json("json", &[1, 2]).unwrap();
    assert_eq!(bucket.get_text("text").unwrap().unwrap(), "kite");
    assert_eq!(bucket.get("bytes").unwrap(), Some(vec![0xff]));
    assert_eq!(bucket.get_json("json").unwrap(), Some(vec![1, 2]));
    assert!(bucket.exists("text").unwrap());
    bucket.delete("text").unwrap();
    bucket.delete("text").unwrap();
    assert!(!bucket.exists("text").unwrap());
    assert_eq!(open("c").unwrap().get("bytes").unwrap(), None);

    let message = |error: KeyValueError| error.to_string();
    let error = bucket.get_text("bytes").map_err(message).unwrap_err();
    assert_eq!(error, "the value of \"bytes\" is no text");
    let error = bucket.get_json::<bool>("json").map_err(message);
    assert!(
        error
            .unwrap_err()
            .starts_with("the value of \"json\" is not as expected: ")
    );
    let error = bucket.set(&"k".repeat(1025), "").map_err(message);
    assert!(error.unwrap_err().contains("1025 bytes"));
}

#[test]
fn keys_come_in_the_order_in_which_they_were_made_over_any_number_of_pages() {
    let bucket = open("b").unwrap();
    assert_eq!(bucket.keys().count(), 0);
    let expected: Vec<String> = (0..2500).rev().map(|key| key.to_string()).collect();
    for keys in expected.chunks(1000) {
        bucket.set_many(keys.iter().map(|key| (key, ""))).unwrap();
    }
    bucket.set("7", "written again").unwrap();
    let keys: Result<Vec<String>, KeyValueError> = bucket.keys().collect();
    assert_eq!(keys.unwrap(), expected);
}

#[test]
fn batches_are_read_and_deleted_in_their_order() {
    let bucket = open("b").unwrap();
    bucket.set_many([("a", "1"), ("b", "2")]).unwrap();
    let found = bucket.get_many(["b", "none", "a"]).unwrap();
    assert_eq!(found, [Some(b"2".to_vec()), None, Some(b"1".to_vec())]);
    bucket.delete_many(["a", "none"]).unwrap();
    assert!(!bucket.exists("a").unwrap() && bucket.exists("b").unwrap());
    let too_many = (0..1001).map(|key| key.to_string());
    bucket.get_many(too_many).unwrap_err();
}

#[test]
fn numbers_count_and_what_is_none_is_an_error() {
    let bucket = open("b").unwrap();
    assert_eq!(bucket.increment("n", 5), Ok(5));
    assert_eq!(bucket.increment("n", -7), Ok(-2));
    assert_eq!(bucket.get_text("n").unwrap().unwrap(), "-2");
    bucket.set("n", i64::MAX.to_string()).unwrap();
    bucket.increment("n", 1).unwrap_err();
    bucket.set("n", "seven").unwrap();
    bucket.increment("n", 1).unwrap_err();
}

#[test]
fn a_swap_fails_once_somebody_else_has_written_and_goes_on_from_there() {
    let bucket = open("b").unwrap();
    let compare = bucket.compare("k").unwrap();
    assert_eq!(compare.current().unwrap(), None);
    bucket.set("k", "theirs").unwrap();
    let Swapped::Changed(again) = compare.swap("mine").unwrap() else {
        panic!("it was swapped");
    };
    assert_eq!(again.current().unwrap(), Some(b"theirs".to_vec()));
    assert!(matches!(again.swap("mine").unwrap(), Swapped::Yes));
    assert_eq!(bucket.get_text("k").unwrap().unwrap(), "mine");
}

#[test]
fn an_update_tries_again_and_gives_up_in_the_end() {
    let bucket = open("b").unwrap();
    let mut others = 3;
    let updated = bucket.update("k", |value| {
        let mut value = value.unwrap_or_default();
        if others > 0 {
            others -= 1;
            bucket.set("k", format!("{others}")).unwrap();
        }
        value.push(b'!');
        Ok(value)
    });
    assert_eq!(updated.unwrap(), b"0!");
    let busy = bucket.update("k", |_| {
        bucket.set("k", "").unwrap();
        Ok(Vec::new())
    });
    assert!(busy.unwrap_err().to_string().contains("100 times"));
    let refused = KeyValueError::Other("no".to_owned());
    let error = bucket.update("k", |_| Err(refused.clone()));
    assert_eq!(error, Err(refused));
}
