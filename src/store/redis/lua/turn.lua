-- What lanes give in their turns, shared by the scripts that lease jobs, which call `write_leases` at last.
-- A lease as it is answered: id, token, what it is (1 one of a batch, 2 the batch's first, 4 an earlier lease may have been lost,
-- 8 the job's record stands as it was made), its lane's failures in a row with the time of the first.
local GIVEN, IS_BATCHED, IS_FIRST, IS_NEW = '>c16I6BI4I6', 1, 2, 8
-- What was given so far: as it counts against the room, in jobs, and as it is answered.
local given, jobs, answered = 0, 0, {}

local function give(connection, l, member, deadline)
  local id, place = member:sub(-16), member:sub(17, -17)
  local token, what = give_lease(connection, l, place, id, deadline)
  if l[BATCH] == 1 then
    given = given + 1
  elseif l[LEASED] == 1 then
    given = given + 1
    what = what + IS_BATCHED + IS_FIRST
  else
    what = what + IS_BATCHED
  end
  if is_new(place) then what = what + IS_NEW end
  jobs = jobs + 1
  answered[jobs] = struct.pack(GIVEN, id, token, what, l[FAILURES], l[SINCE])
end

local function give_all(connection, l, list, deadline)
  with_all('ZREM', QUEUE, list)
  for _, member in ipairs(list) do give(connection, l, member, deadline) end
end

-- Gives of a lane at most `want` jobs, as far as it may give them; answers true where it is known that it has more to give.
local function turn(connection, l, want, deadline)
  want = math.min(want, l[WIDTH] - l[LEASED])
  if l[BATCH] > 1 then want = l[LEASED] == 0 and l[BATCH] or 0 end
  if is_held(l) or want <= 0 then return end
  local first, last = '[' .. connection .. 'D', '(' .. connection .. 'G'
  local list = call('ZRANGEBYLEX', QUEUE, first, last, 'LIMIT', '0', want + 1)
  if #list == 0 or list[1]:sub(17, 17) == 'F' then
    local has_more = #list > want
    if has_more then list[#list] = nil end
    give_all(connection, l, list, deadline)
    return has_more
  end
  local retries = call('ZRANGEBYLEX', QUEUE, first, '(' .. connection .. 'D' .. number(now + 1, 6), 'LIMIT', '0', want)
  give_all(connection, l, retries, deadline)
  want = want - #retries
  if want <= 0 then return end
  if l[CAP] == 1 then
    -- A retry that waits holds back what stands behind it.
    local waits = call('ZRANGEBYLEX', QUEUE, first, '(' .. connection .. 'E', 'LIMIT', '0', '1')
    if #waits > 0 then return end
  end
  give_all(connection, l, call('ZRANGEBYLEX', QUEUE, '[' .. connection .. 'F', last, 'LIMIT', '0', want), deadline)
end
