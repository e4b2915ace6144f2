-- How an event and its jobs are entered, shared by the scripts that write them, which call `write_entered` at last.
local IDS_KEPT = 16
-- `NEWEST_EVENTS` and `NEWEST_TYPES` of the port.
local NEWEST, TYPES = 100, 256
-- Written by this call: entries of the log of all events; members of other sorted sets by key; bases, oldest first, by the
-- key of the tenant's newest events and type; bases by their field among the public ids, newest first, and these fields.
local entries, members, newest, bases_of, public = {}, {}, {}, {}, {}

local function enter_member(key, member)
  members[key] = members[key] or {}
  local list = members[key]
  list[#list + 1] = '0'
  list[#list + 1] = member
end

local function note_newest(key, kind, base)
  newest[key] = newest[key] or {}
  local kinds = newest[key]
  kinds[kind] = kinds[kind] or {}
  local bases = kinds[kind]
  bases[#bases + 1] = base
end

local function write_newest()
  for key, kinds in pairs(newest) do
    for kind, bases in pairs(kinds) do
      local others = call('HGET', key, kind)
      if others or call('HLEN', key) < TYPES then
        local list = {}
        for at = #bases, math.max(1, #bases - NEWEST + 1), -1 do list[#list + 1] = bases[at] end
        list[#list + 1] = (others or ''):sub(1, 11 * (NEWEST - #list))
        call('HSET', key, kind, table.concat(list))
      end
    end
  end
end

local function write_public()
  local list = {}
  for at, others in ipairs(with_all('HMGET', IDS, public) or {}) do
    local field = public[at]
    list[2 * at - 1] = field
    list[2 * at] = others and bases_of[field] .. others:sub(1, 11 * IDS_KEPT - #bases_of[field]) or bases_of[field]
  end
  with_all('HSET', IDS, list)
end

local function write_entered()
  with_all('ZADD', EVENTS, entries)
  write_public()
  for key, list in pairs(members) do call('ZADD', key, unpack(list)) end
  write_newest()
end

-- Enters an event into the logs, which name it with the number of its jobs (`entry`), under its public id (`field`) and into the
-- tenant's newest events.
local function enter_event(tenant_log, newest_key, base, entry, field, kind)
  entries[#entries + 1] = '0'
  entries[#entries + 1] = entry
  enter_member(tenant_log, entry)
  local others = bases_of[field]
  if not others then public[#public + 1] = field end
  bases_of[field] = others and (base .. others):sub(1, 11 * IDS_KEPT) or base
  note_newest(newest_key, kind, base)
end

-- Puts a new job into its lane, behind what is there.
local function enter_lane(connection, l, id, age)
  S[S_SEQ] = S[S_SEQ] + 1
  put_back(struct.pack('>c16c1I6c16', connection, 'F', S[S_SEQ], id))
  join(l, age)
  -- In a lane that is not strict a fresh job may go at once, whatever else waits there.
  if l[IN_RING] == 0 and l[CAP] > 1 and l[LEASED] < l[WIDTH] and not is_held(l) then enter_ring(connection, l) end
end

-- Puts a new job into its connection's log, and, if it is not triggered, into its lane.
local function enter_job(base, index, partition, job)
  local place = base .. number(index, 3)
  enter_member(KEYS[job.log], place)
  if not job.triggered then enter_lane(job.connection, lane(job.connection), place .. partition, age_of(base)) end
end
