-- Writes outcomes back. The key of the n-th settlement's event is KEYS[FIXED + n]; those of the connections' totals follow.
-- ARGV from 4 on, five for each: a head (`HEAD`: id, token, attempt's number (0 for none), next (0 done, 1 due, 2 requeue), state or due,
-- health (0, 1, 2 for neither), wait until, whether the effect on the record closes, from how many failures on the breaker opens (0 for
-- never), when it then probes, the slot of its latency (255 for no attempt), whether it failed, the index of the totals' key, the
-- fields of its record and of its attempt), attempt, reason, effect on the record as JSON (empty for none), rendered bytes (empty
-- for none; of a job that ends, whether those that were kept go).
-- Answers: how many were taken, how many lanes the ring holds, when something happens by itself next, then connection and
-- effect of each whose record must change.
local EACH, HEAD = 5, '>c16I6I4BI6BI6BI4I6BBI2Bc0Bc0'
local IS_DONE, IS_DUE, IS_REQUEUED = 0, 1, 2
-- Tries whose records are kept.
-- `KEPT_ATTEMPTS` of the port; the conformance suite holds the two together.
local TRIES_KEPT = 100
local taken, effects = 0, {}

local COUNT = (#ARGV - COMMON) / EACH

local ids, connections, is_listed = {}, {}, {}
for n = 1, COUNT do ids[n] = ARGV[COMMON + 1 + (n - 1) * EACH]:sub(1, 16) end
local found = with_all('HMGET', HELD, ids) or {}
for n, raw in ipairs(found) do
  local connection = raw and raw:sub(39, 54)
  if connection and not is_listed[connection] then
    connections[#connections + 1], is_listed[connection] = connection, true
  end
end
read_lanes(connections)

for n = 1, COUNT do
  local at = COMMON + (n - 1) * EACH
  local id, token, number_of, next_step, value, health, wait, closes, opens_after, probe_at, latency, failed, totals, index,
    attempt = struct.unpack(HEAD, ARGV[at + 1])
  local event, reason, effect, rendered = KEYS[FIXED + n], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local held = held_of(id, found[n], token)
  if held then
    taken = taken + 1
    local connection, place = held[3], held[4]
    local l = end_lease(id, held)
    local raw = call('HGET', event, index)
    if raw and l then
      local _, mapping, state, attempts, tries, due, finished = struct.unpack(RECORD, raw)
      local fields = { index, '' }
      if number_of > 0 then
        tries = tries + 1
        fields[3], fields[4] = attempt, ARGV[at + 2]
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
        put_back(connection .. place .. id)
      end
      fields[2] = struct.pack(RECORD, connection, mapping, state, attempts, tries, due, finished) .. reason
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
if taken > 0 then finish() end
return { taken, S[S_RING], next_timer(), unpack(effects) }
