-- Writes outcomes back. The key of the n-th settlement's event is KEYS[FIXED + n]. That of
-- its connection's totals is KEYS[FIXED + count + n]. ARGV from 4 on, sixteen for each: id,
-- token, attempt's number (0 for none), attempt, next (`done`, `due`, `requeue`), state or due, reason, health (-1, 0, 1),
-- wait until, effect on the record as JSON (empty for none), whether that effect closes, from how many failures on
-- the breaker opens (0 for never), when it then probes, rendered bytes (empty for none; of a job that ends, whether those
-- that were kept go), the slot of its latency (empty for no attempt), whether it failed.
-- Answers: how many were taken, how many lanes the ring holds, when something happens by itself next, then connection and
-- effect of each whose record must change.
local EACH = 16
-- Tries whose records are kept.
-- `KEPT_ATTEMPTS` of the port; the conformance suite holds the two together.
local TRIES_KEPT = 100
local taken, effects = 0, {}

local COUNT = (#ARGV - COMMON) / EACH

local ids, connections = {}, {}
for n = 1, COUNT do ids[n] = ARGV[COMMON + 1 + (n - 1) * EACH] end
local found = with_all('HMGET', HELD, ids) or {}
for n, raw in ipairs(found) do
  local held = held_of(ids[n], raw)
  if held then connections[held[3]] = true end
end
read_lanes(connections)

for n = 1, COUNT do
  local at = COMMON + (n - 1) * EACH
  local id, token, event = ids[n], tonumber(ARGV[at + 2]), KEYS[FIXED + n]
  local number_of, attempt = tonumber(ARGV[at + 3]), ARGV[at + 4]
  local next_step, value, reason = ARGV[at + 5], tonumber(ARGV[at + 6]), ARGV[at + 7]
  local health, wait, effect, closes = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), ARGV[at + 10], ARGV[at + 11]
  local opens_after, probe_at, rendered = tonumber(ARGV[at + 12]), tonumber(ARGV[at + 13]), ARGV[at + 14]
  local held = held_of(id, found[n], token)
  if held then
    taken = taken + 1
    local connection, place = held[3], held[4]
    local l = end_lease(id, held)
    local index = struct.unpack('>I3', id, 12)
    local raw = call('HGET', event, index)
    if raw and l then
      local _, mapping, state, attempts, tries, due, finished = struct.unpack(RECORD, raw)
      local fields = { index, '' }
      if number_of > 0 then
        tries = tries + 1
        fields[3], fields[4] = 'a' .. index .. '.' .. number_of, attempt
        if number_of > TRIES_KEPT then call('HDEL', event, 'a' .. index .. '.' .. (number_of - TRIES_KEPT)) end
        -- `Next::spends_attempt`.
        local failed_by_mapping = next_step == 'done' and value == MAPPING_FAILED
        if next_step ~= 'requeue' and not failed_by_mapping then attempts = attempts + 1 end
      end
      if next_step ~= 'done' and (l[IS_CLOSED] == 1 or closes == '1') then
        next_step, value = 'done', CANCELLED
        reason = reason .. '; then its connection was closed'
      end
      if next_step == 'done' then
        state, due, finished = value, 0, now
        if rendered ~= '' then call('HDEL', event, 'b' .. index) end
        leave(l, id)
      else
        if next_step == 'due' then
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
      tally(KEYS[FIXED + COUNT + n], ARGV[at + 15], ARGV[at + 16], next_step == 'done' and state)
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
