-- Leases and the processes that have them, shared by the scripts that give leases or tell that a process lives.
-- How long a process with leases may be silent before they go back (it speaks every two seconds, `BEAT` of `mod.rs`), and how
-- long a silence of everybody must be to be the server's own.
local SILENCE, GAP = 6000, 3500
-- Leases that this script gave: written by `write_leases`.
local given_held = {}

-- The server's own clock, by which processes are compared.
local function server_time()
  local time = call('TIME')
  local server_now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  -- Whoever was silent because the server was has some time to speak again.
  if server_now - S[S_SEEN] > GAP then S[S_GRACE] = server_now + SILENCE end
  S[S_SEEN] = server_now
  return server_now
end

-- Leases a job that has this place in the queue. Answers the lease's token, and 4 where an earlier lease may have been lost.
local function give_lease(connection, l, place, id, deadline)
  S[S_TOKEN] = S[S_TOKEN] + 1
  local at = #given_held
  given_held[at + 1], given_held[at + 2] = id, pack_held(S[S_TOKEN], connection, deadline, place)
  l[LEASED] = l[LEASED] + 1
  S[S_LEASED] = S[S_LEASED] + 1
  return S[S_TOKEN], l[DOUBT] > 0 and made_at(id) <= l[DOUBT] and 4 or 0
end

-- All end at the same time. Whoever has leases where it had none is told of, so that the others see to it that it lives.
local function write_leases(server_now, deadline)
  if #given_held == 0 then return end
  call('HSET', HELD, unpack(given_held))
  note_end(deadline)
  if call('ZADD', OWNERS, server_now, me) == 1 then call('PUBLISH', channel, me) end
end
