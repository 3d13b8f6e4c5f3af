/* Included by bcc's copy of the BPF user API; nothing of it is used. */
