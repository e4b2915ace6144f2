-- Says that this process lives, so that its leases here stay its own.
call('ZADD', OWNERS, server_time(), me)
finish()
return 1
