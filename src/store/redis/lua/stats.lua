-- Counts, and the ten seconds in which the oldest open job was made (-1 for none).
local oldest = call('ZRANGE', AGE_INDEX, 0, 0)[1]
-- Those whose time has come are ready, though nobody asked yet.
local due = call('ZCOUNT', TIMERS, '-inf', now)
return { S[S_OPEN], S[S_LEASED], S[S_CLASS + READY_NOW] + due, S[S_CLASS + WAITING] - due, S[S_CLASS + FULL], S[S_CLASS + PAUSED],
  tonumber(oldest) or -1 }
