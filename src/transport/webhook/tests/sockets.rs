//! Opening sockets.

use super::*;

#[test]
fn the_same_address_is_the_same_socket_while_it_is_used() {
    let sockets = Sockets::none();
    let any = Listen::Address("127.0.0.1:0".parse().unwrap());
    let first = sockets.bind(&any).unwrap();
    assert!(Arc::ptr_eq(&first, &sockets.bind(&any).unwrap()));
    let address = first.local_addr().unwrap();
    let other = Listen::Address("[::1]:0".parse().unwrap());
    let other = sockets.bind(&other).unwrap();
    assert!(Arc::ptr_eq(&first, &sockets.bind(&any).unwrap()), "a second one changes nothing");
    drop((first, other));
    let again = sockets.bind(&Listen::Address(address)).unwrap();
    assert_eq!(again.local_addr(), Some(address), "what is not used is free");
}

#[test]
fn errors_say_what_to_do() {
    let taken = listener();
    let address = taken.local_addr().unwrap();
    let bind = |listen| Sockets::none().bind(&listen).unwrap_err().to_string();
    let message = bind(Listen::Address(address));
    assert!(message.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{message}");
    let message = bind(Listen::Address("192.0.2.1:80".parse().unwrap()));
    assert!(message.contains("not an address of this machine"), "{message}");
    let message = bind(Listen::Systemd);
    assert!(message.contains("systemctl enable --now eventsubd.socket"), "{message}");
}
