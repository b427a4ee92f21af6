"""What HTTP/1.1 says, held against us: tables of messages, and the same bytes beside other proxies."""
