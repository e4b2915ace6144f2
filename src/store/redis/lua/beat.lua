-- Says that this process lives, so that its leases here stay its own.
local time = call('TIME')
local server_now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Whoever was silent because the server was has some time to speak again.
if server_now - S[S_SEEN] > tonumber(ARGV[5]) then S[S_GRACE] = server_now + tonumber(ARGV[4]) end
S[S_SEEN] = server_now
call('ZADD', OWNERS, server_now, me)
finish()
return 1
