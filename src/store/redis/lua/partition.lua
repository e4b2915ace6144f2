-- Shared by every script of a partition. `KEYS` 1 to 17 are the partition's own keys, in the order of `keys.rs`;
-- `ARGV` 1 to 3 are the caller's time in milliseconds, the caller's owner id, and the channel for wake-ups.
local STATE, LANES, QUEUE, READY, TENANTS, TIMERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local HELD, OWNERS = KEYS[7], KEYS[8]
local CLOSING, PENDING, GONE, EVENTS, AGES, AGE_INDEX = KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local STAGED, ACCEPTED, IDS = KEYS[15], KEYS[16], KEYS[17]
local FIXED, COMMON = 17, 3
local now, me, channel = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local call = redis.call

-- The partition's counters.
local S_TOKEN, S_TURN, S_SEQ, S_OPEN, S_LEASED, S_RING, S_SEEN, S_GRACE, S_CLASS = 1, 2, 3, 4, 5, 6, 7, 8, 8
-- Classes of lanes that hold jobs; `S_CLASS + class` counts them.
local READY_NOW, WAITING, FULL, PAUSED = 1, 2, 3, 4
-- How often something was erased here, and how many jobs were leased past the ring since it was last gone round.
local S_ERASED, S_PAST_RING = 13, 14
-- No lease ends before (0 where there is none). The walk through the leases (`lease.lua`): where it goes on (0 where none is under
-- way), when it began by the server's clock, and the earliest end that it met.
local S_ENDS, S_WALK, S_WALKED_FROM, S_WALK_ENDS = 15, 16, 17, 18
-- A lane.
local REV, TENANT, CAP, WIDTH, IS_PAUSED, IS_CLOSED, WAIT, LEASED, OPEN, IN_RING, TIMER, CLASS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
-- How many jobs it gives at once; and the time until which its jobs may have had a lease that was lost.
local BATCH, DOUBT = 13, 14
-- Its failures in a row, and when the first of them was written.
local FAILURES, SINCE = 15, 16
-- The time before which its jobs are not wanted (0 for all are), and the last member of the queue looked at for that.
local UNWANTED, SEEN = 17, 18
-- States of a job, as `JobState::ALL` counts them.
local QUEUED, WAITS, MAPPING_FAILED, DELIVERED, DEAD, CANCELLED = 0, 1, 2, 3, 4, 7
-- What is put behind a place in the queue once the job's record was written: one without it is as it was made.
local WRITTEN = '+'
-- A job's record: connection, mapping, state, attempts, tries, due, finished; then the reason.
local RECORD = '>c16c16BI4I4I6I6'

local raw_state = call('GET', STATE)
local S = raw_state and cmsgpack.unpack(raw_state) or {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
-- Lanes that this script looked at, in that order, and how they lay there.
local touched, touched_order, lay = {}, {}, {}
local announce, new_timer, left_behind = false, math.huge, false
local ages = {}

-- Made once: a format that is put together for each number costs more than the number.
local FORMATS = { [3] = '>I3', [4] = '>I4', [6] = '>I6' }
local function number(value, bytes)
  return struct.pack(FORMATS[bytes], value)
end

-- Runs a command on a key with all of a list, where there is something in it. What many jobs need is done by one command:
-- each costs more than what it does.
local function with_all(command, key, list)
  if #list > 0 then return call(command, key, unpack(list)) end
end

-- A lane as it lies. What counts jobs has a sign, so that a wrong count stays a small one.
local LANE = '>I6Bc0I4I4BBI6i4i4BI6BI4I6I4I6I6Bc0'

local function read_lane(raw)
  local l = { struct.unpack(LANE, raw) }
  -- After the values comes where they ended.
  l[#l] = nil
  return l
end

local function pack_lane(l)
  return struct.pack(LANE, l[REV], #l[TENANT], l[TENANT], l[CAP], l[WIDTH], l[IS_PAUSED], l[IS_CLOSED], l[WAIT], l[LEASED], l[OPEN],
    l[IN_RING], l[TIMER], l[CLASS], l[BATCH], l[DOUBT], l[FAILURES], l[SINCE], l[UNWANTED], #l[SEEN], l[SEEN])
end

local function touch(connection, raw)
  local known = read_lane(raw)
  touched[connection], lay[connection] = known, raw
  touched_order[#touched_order + 1] = connection
  return known
end

local function lane(connection)
  local known = touched[connection]
  if known then return known end
  local raw = call('HGET', LANES, connection)
  return raw and touch(connection, raw) or nil
end

-- Reads the lanes of connections before each is asked for.
local function read_lanes(connections)
  for at, raw in ipairs(with_all('HMGET', LANES, connections) or {}) do
    if raw and not touched[connections[at]] then touch(connections[at], raw) end
  end
end

local function set_class(l, class)
  if l[CLASS] == class then return end
  if l[CLASS] > 0 then S[S_CLASS + l[CLASS]] = S[S_CLASS + l[CLASS]] - 1 end
  if class > 0 then S[S_CLASS + class] = S[S_CLASS + class] + 1 end
  l[CLASS] = class
end

local function set_timer(connection, l, time)
  if l[TIMER] == time then return end
  if time > 0 then
    call('ZADD', TIMERS, time, connection)
    new_timer = math.min(new_timer, time)
  else
    call('ZREM', TIMERS, connection)
  end
  l[TIMER] = time
end

-- Whether it gives nothing until its record says otherwise.
local function is_stopped(l)
  return l[IS_PAUSED] == 1 or l[IS_CLOSED] == 1 or l[UNWANTED] > 0
end

local function is_held(l)
  return is_stopped(l) or l[WAIT] > now
end

-- Whether the lane's first job may be leased now; else when its first retry is due, if there is one.
local function may_give(connection, l)
  local first = call('ZRANGEBYLEX', QUEUE, '[' .. connection .. 'D', '(' .. connection .. 'G', 'LIMIT', '0', '1')[1]
  if not first then return false end
  if first:sub(17, 17) == 'F' then return true end
  local due = struct.unpack('>I6', first, 18)
  if due <= now then return true end
  if l[CAP] == 1 then return false, due end
  local fresh = call('ZRANGEBYLEX', QUEUE, '[' .. connection .. 'F', '(' .. connection .. 'G', 'LIMIT', '0', '1')[1]
  return fresh and true or false, due
end

local function enter_ring(connection, l)
  l[IN_RING] = 1
  S[S_TURN] = S[S_TURN] + 1
  if S[S_RING] == 0 then announce = true end
  S[S_RING] = S[S_RING] + 1
  call('ZADD', READY, '0', l[TENANT] .. '\0' .. number(S[S_TURN], 6) .. connection)
  call('ZADD', TENANTS, 'NX', S[S_TURN], l[TENANT])
  set_class(l, READY_NOW)
  set_timer(connection, l, 0)
end

-- Puts a lane where it belongs: into the ring when it may give, else to whatever it waits for. `has_more` where it is known
-- that its first job is a fresh one.
local function wake(connection, l, has_more)
  -- One that left the ring's conditions behind is taken out when its turn comes.
  if l[OPEN] <= 0 then
    set_class(l, 0)
    set_timer(connection, l, 0)
  elseif is_stopped(l) then
    set_class(l, PAUSED)
    set_timer(connection, l, 0)
  elseif l[LEASED] >= l[WIDTH] then
    set_class(l, FULL)
    set_timer(connection, l, 0)
  elseif l[IN_RING] == 1 then
    set_class(l, READY_NOW)
  elseif l[OPEN] <= l[LEASED] then
    set_class(l, WAITING)
    set_timer(connection, l, 0)
  elseif l[WAIT] > now then
    set_class(l, WAITING)
    set_timer(connection, l, l[WAIT])
  else
    local gives, due = has_more, nil
    if not has_more then gives, due = may_give(connection, l) end
    if gives then
      enter_ring(connection, l)
      -- A retry that falls due needs no timer while the lane goes round.
    else
      set_class(l, WAITING)
      set_timer(connection, l, due or 0)
    end
  end
end

-- The ten seconds in which a job was made, which its id and its event's base begin with.
local function age_of(id)
  return math.floor(struct.unpack('>I6', id) / 10000)
end

-- Counts open jobs by them.
local function count_age(bucket, change)
  ages[bucket] = (ages[bucket] or 0) + change
end

local function leave(l, id)
  l[OPEN] = l[OPEN] - 1
  S[S_OPEN] = S[S_OPEN] - 1
  count_age(age_of(id), -1)
end

local function join(l, age)
  l[OPEN] = l[OPEN] + 1
  S[S_OPEN] = S[S_OPEN] + 1
  count_age(age, 1)
end

-- Leaves it to upkeep to cancel what is in a lane: all of a closed one, or what nobody wants.
local function close(connection)
  call('ZADD', CLOSING, now, connection)
  left_behind = true
end

-- Leases that ended in this script, and members that the queue gets: `write_back` writes them.
local ended, is_over, queued = {}, {}, {}

local function put_back(member)
  queued[#queued + 1] = '0'
  queued[#queued + 1] = member
end

-- To be called before what it writes is looked at; `finish` calls it too.
local function write_back()
  with_all('HDEL', HELD, ended)
  with_all('ZADD', QUEUE, queued)
  ended, is_over, queued = {}, {}, {}
end

-- Ends a lease of a connection's job.
local function end_lease(id, connection)
  ended[#ended + 1], is_over[id] = id, true
  S[S_LEASED] = S[S_LEASED] - 1
  local l = lane(connection)
  if l then
    l[LEASED] = l[LEASED] - 1
    -- It may come back to where was looked already.
    if l[UNWANTED] > 0 then
      l[SEEN] = ''
      close(connection)
    end
  end
  return l
end

-- Whether the job at a place in the queue has its record as it was made.
local function is_new(place)
  return #place == 7 and place:sub(1, 1) == 'F'
end

local function made_at(id)
  return (struct.unpack('>I6', id))
end

-- `lost` where its holder did not give it back itself, so that nobody knows what was done under the lease.
local function give_back(id, held, lost)
  local l = end_lease(id, held[3])
  if l and lost then l[DOUBT] = math.max(l[DOUBT], now, made_at(id)) end
  if l and l[IS_CLOSED] == 1 then close(held[3]) end
  put_back(held[3] .. held[4] .. id)
end

-- What `HELD` keeps of a lease: token, owner, connection, deadline, place in the queue. That is longer than what Redis keeps
-- packed one after the other, where a lease is found by going through all of them.
local LEASED_AS, LEASED_AT = '>I6c32c16I6', 61
local CONNECTION_FROM, CONNECTION_TO = 39, 54
-- So many leases one call walks through.
local WALKED = 256
local function pack_held(token, connection, deadline, place)
  return struct.pack('>I6c32c16I6c0', token, me, connection, deadline, place)
end

-- A lease ends then, and none before what is known of.
local function note_end(deadline)
  if S[S_ENDS] == 0 or deadline < S[S_ENDS] then S[S_ENDS] = deadline end
  if S[S_WALK_ENDS] == 0 or deadline < S[S_WALK_ENDS] then S[S_WALK_ENDS] = deadline end
end

-- A lease by what `HELD` has of it; only under `token`, where one is given.
local function held_of(id, raw, token)
  if not raw or is_over[id] then return nil end
  local known, owner, connection, deadline = struct.unpack(LEASED_AS, raw)
  if token and known ~= token then return nil end
  return { known, owner, connection, raw:sub(LEASED_AT), deadline }
end

local function held_by(id, token)
  return held_of(id, call('HGET', HELD, id), token)
end

-- Counts in a connection's day, which forgets itself: its attempt under `latency` (empty for none) and, where it failed, under
-- `FAILED`; the job under the state that it ended in, if it did. `slots` of the port's log.
local TALLY_FAILED, TALLY_SECS = '8', 8 * 24 * 3600
local tallies = {}
local function tally(key, latency, failed, state)
  tallies[key] = tallies[key] or {}
  local slots = tallies[key]
  if latency ~= '' then slots[latency] = (slots[latency] or 0) + 1 end
  if failed == 1 then slots[TALLY_FAILED] = (slots[TALLY_FAILED] or 0) + 1 end
  if state then slots[state] = (slots[state] or 0) + 1 end
end

local function write_tallies()
  for key, slots in pairs(tallies) do
    local is_new = false
    for slot, count in pairs(slots) do is_new = call('HINCRBY', key, slot, count) == count or is_new end
    if is_new then call('EXPIRE', key, TALLY_SECS, 'NX') end
  end
end

-- What an outcome does to its lane: health (0, 1, 2 for neither), wait until, effect on the record as JSON (empty for none), whether
-- that effect closes, from how many failures on the breaker opens (0 for never), when it then probes. Answers whether the
-- record must change.
local function affect(connection, l, health, wait, effect, closes, opens_after, probe_at)
  if health == 1 then
    l[WIDTH] = math.min(l[WIDTH] + 1, l[CAP])
    l[FAILURES], l[SINCE] = 0, 0
  elseif health == 0 then
    l[WIDTH] = math.max(math.floor(l[WIDTH] / 2), 1)
    if l[FAILURES] == 0 then l[SINCE] = now end
    -- What was under way when the breaker opened says nothing new.
    local was_open = opens_after > 0 and l[FAILURES] >= opens_after
    if not (was_open and l[WAIT] > now) then l[FAILURES] = math.min(l[FAILURES] + 1, 4294967295) end
    if opens_after > 0 and l[FAILURES] >= opens_after then wait = math.max(wait, probe_at) end
  end
  if wait > l[WAIT] then l[WAIT] = wait end
  if effect == '' or l[IS_CLOSED] == 1 then return false end
  if closes == 1 then
    l[IS_CLOSED] = 1
    close(connection)
  else
    l[IS_PAUSED] = 1
  end
  call('HSET', PENDING, connection, effect)
  left_behind = true
  return true
end

-- When something happens here by itself next; 0 for never.
local function next_timer()
  return tonumber(call('ZRANGE', TIMERS, '0', '0', 'WITHSCORES')[2]) or 0
end

-- To be called last, and only by scripts that write. Other processes are told when the ring is no longer empty, or when
-- something will happen sooner than they know; `quiet` where they will ask anyway.
local function finish(quiet)
  write_back()
  write_tallies()
  local lanes = {}
  for _, connection in ipairs(touched_order) do
    local l = touched[connection]
    wake(connection, l)
    local raw = pack_lane(l)
    if raw ~= lay[connection] then
      lanes[#lanes + 1] = connection
      lanes[#lanes + 1] = raw
    end
  end
  with_all('HSET', LANES, lanes)
  for bucket, change in pairs(ages) do
    if change ~= 0 then
      local count = call('HINCRBY', AGES, bucket, change)
      if count <= 0 then
        call('HDEL', AGES, bucket)
        call('ZREM', AGE_INDEX, bucket)
      elseif count == change then
        call('ZADD', AGE_INDEX, bucket, bucket)
      end
    end
  end
  call('SET', STATE, cmsgpack.pack(S))
  if left_behind then call('PUBLISH', channel, 'upkeep') end
  if quiet then return end
  if announce or (new_timer < math.huge and next_timer() >= new_timer) then call('PUBLISH', channel, me) end
end
