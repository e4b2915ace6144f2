-- Forgets a request that was staged and never accepted. KEYS[FIXED + 1] is where it is staged; ARGV: 4 its name. Answers in
-- how many parts it was staged where it was accepted, else 0.
local parts = call('HGET', KEYS[FIXED + 1], 'parts')
if parts then return tonumber(parts) end
call('UNLINK', KEYS[FIXED + 1])
call('ZREM', STAGED, ARGV[4])
call('ZREM', ACCEPTED, ARGV[4])
return 0
