-- Writes outcomes back. KEYS from FIXED + 1: the events of those that are not plain, one for each, and whatever is named by its index. ARGV: 4
-- the head of each plain one (`PLAIN`: id, token, indexes of its event and of its connection's totals, the slot of its
-- latency), 5 what becomes of its record and its attempt, for each; then how many others
-- there are, and the head of each (`HEAD`: id, token, attempt's number (0 for none), next (0 done, 1 due, 2
-- requeue), state or due, health (0, 1, 2 for neither), wait until, whether the effect on the record closes, from how many
-- failures on the breaker opens (0 for never), when it then probes, the slot of its latency (255 for no attempt), whether it
-- failed, the index of the totals' key; whether its record stands as it was made, and its mapping then; where in ARGV (0 for
-- nowhere) its attempt is, the reason, the effect on the record as JSON, the rendered bytes (of a job that ends, anything where those
-- that were kept go); the fields of its record and of its attempt), then what these name. Last how many jobs the caller has room
-- for, and the deadline of their leases.
-- Answers: how many were taken, how many lanes the ring holds, when something happens by itself next, connection and
-- effect of each whose record must change, how often something was erased here, and what was leased (`GIVEN`).
-- Plain is a job whose record stands as it was made, and which its endpoint took at the first try; those of a lane go before its others.
local STANDING = '>BI4I4I6I6'
local HEAD = '>c16I6I4BI6BI6BI4I6BBI2Bc16I2I2I2I2Bc0Bc0'
local PLAIN, PLAIN_BYTES, WORDS = '>c16I6I2I2B', 27, 5
local IS_DONE, IS_DUE, IS_REQUEUED = 0, 1, 2
-- Tries whose records are kept.
-- `KEPT_ATTEMPTS` of the port; the conformance suite holds the two together.
local TRIES_KEPT = 100
-- So many jobs are leased past the ring, then the lanes go into it once, so that other processes come to have some.
local PAST_RING = 256
local room, deadline = tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV])
local taken, effects = 0, {}

local plains = #ARGV[4] / PLAIN_BYTES
local FIRST = WORDS + 2 * plains
local COUNT = tonumber(ARGV[FIRST])

-- What a record says of connection and mapping, as it lies there, and where the job stands.
local function read_record(event, index)
  local raw = call('HGET', event, index)
  if raw then return raw:sub(1, 32), struct.unpack(STANDING, raw, 33) end
end

local ids, connections, is_listed, connection_of = {}, {}, {}, {}
for n = 1, plains do ids[n] = ARGV[4]:sub(PLAIN_BYTES * (n - 1) + 1, PLAIN_BYTES * (n - 1) + 16) end
for n = 1, COUNT do ids[plains + n] = ARGV[FIRST + n]:sub(1, 16) end
local found = with_all('HMGET', HELD, ids) or {}
for n, raw in ipairs(found) do
  local connection = raw and raw:sub(CONNECTION_FROM, CONNECTION_TO)
  connection_of[n] = connection
  if connection and not is_listed[connection] then
    connections[#connections + 1], is_listed[connection] = connection, true
  end
end
read_lanes(connections)

-- Of the events of plain ones what becomes of their fields; the fields of records and attempts by the job's number.
local fields_of, record_field, attempt_field = {}, {}, {}

local function write_plain(n)
  local id, token, event, totals, slot = struct.unpack(PLAIN, ARGV[4], PLAIN_BYTES * (n - 1) + 1)
  local raw = found[n]
  if not raw or is_over[id] or struct.unpack('>I6', raw) ~= token then return end
  taken = taken + 1
  local l = end_lease(id, connection_of[n])
  if not l then return end
  leave(l, id)
  l[WIDTH], l[FAILURES], l[SINCE] = math.min(l[WIDTH] + 1, l[CAP]), 0, 0
  tally(KEYS[totals], slot, 0, DELIVERED)
  local index = struct.unpack('>I3', id, 12)
  if not record_field[index] then record_field[index], attempt_field[index] = tostring(index), 'a' .. index .. '.1' end
  local fields = fields_of[event]
  if not fields then
    fields = {}
    fields_of[event] = fields
  end
  local at = #fields
  fields[at + 1], fields[at + 2] = record_field[index], ARGV[WORDS + 2 * n - 2]
  fields[at + 3], fields[at + 4] = attempt_field[index], ARGV[WORDS + 2 * n - 1]
end

for n = 1, plains do write_plain(n) end
for event, fields in pairs(fields_of) do call('HSET', KEYS[event], unpack(fields)) end

for n = 1, COUNT do
  local id, token, number_of, next_step, value, health, wait, closes, opens_after, probe_at, latency, failed, totals, is_known,
    mapping, attempt_at, reason_at, effect_at, rendered_at, index, attempt = struct.unpack(HEAD, ARGV[FIRST + n])
  local event, reason, effect, rendered = KEYS[FIXED + n], ARGV[reason_at] or '', ARGV[effect_at] or '', ARGV[rendered_at] or ''
  local held = held_of(id, found[plains + n], token)
  if held then
    taken = taken + 1
    local connection, place = held[3], held[4]
    local l = end_lease(id, connection)
    local of, state, attempts, tries, due, finished
    if is_known == 1 then
      of, state, attempts, tries, due, finished = connection .. mapping, QUEUED, 0, 0, 0, 0
    else
      of, state, attempts, tries, due, finished = read_record(event, index)
    end
    if of and l then
      local fields = { index, '' }
      if number_of > 0 then
        tries = tries + 1
        fields[3], fields[4] = attempt, ARGV[attempt_at]
        if number_of > TRIES_KEPT then call('HDEL', event, 'a' .. index .. '.' .. (number_of - TRIES_KEPT)) end
        -- `Next::spends_attempt`.
        local failed_by_mapping = next_step == IS_DONE and value == MAPPING_FAILED
        if next_step ~= IS_REQUEUED and not failed_by_mapping then attempts = attempts + 1 end
      end
      if next_step ~= IS_DONE and (l[IS_CLOSED] == 1 or closes == 1) then
        next_step, value = IS_DONE, CANCELLED
        reason = reason .. '; then its connection was closed'
      end
      if next_step == IS_DONE then
        state, due, finished = value, 0, now
        if rendered ~= '' then call('HDEL', event, 'b' .. index) end
        leave(l, id)
      else
        if next_step == IS_DUE then
          state, due = WAITS, math.max(value, 1)
          place = 'D' .. number(due, 6)
        end
        if rendered ~= '' then
          fields[#fields + 1] = 'b' .. index
          fields[#fields + 1] = rendered
        end
        if is_new(place) then place = place .. WRITTEN end
        put_back(connection .. place .. id)
      end
      fields[2] = of .. struct.pack(STANDING, state, attempts, tries, due, finished) .. reason
      call('HSET', event, unpack(fields))
      tally(KEYS[totals], latency < 255 and latency or '', failed, next_step == IS_DONE and state)
    elseif l then
      leave(l, id)
    end
    if l and affect(connection, l, health, wait, effect, closes, opens_after, probe_at) then
      effects[#effects + 1] = connection
      effects[#effects + 1] = effect
    end
  end
end

-- Where nothing waits in the ring, lanes that have places again give their next jobs here and now: what a lease would do after
-- this. Batches are left to it.
if room > 0 and taken > 0 and S[S_RING] == 0 then
  if S[S_PAST_RING] < PAST_RING then
    write_back()
    for _, connection in ipairs(touched_order) do
      local l = touched[connection]
      if l[OPEN] > l[LEASED] and l[BATCH] == 1 then turn(connection, l, room - given, deadline) end
    end
    S[S_PAST_RING] = S[S_PAST_RING] + given
    if given > 0 then write_leases(server_time(), deadline) end
  else
    S[S_PAST_RING] = 0
  end
end
if taken > 0 then finish() end
return { taken, S[S_RING], next_timer(), effects, S[S_ERASED], table.concat(answered) }
